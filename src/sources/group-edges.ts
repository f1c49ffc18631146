import { grown } from '../state/grown.js';
import { lowerBound } from './id-list.js';

const NONE = -1;
const CLOSED = -1;

/**
 * The edges between `length` groups, which stand in ascending order of id and are named by their
 * index. A group's first edge takes 4 bytes; the few that are more than that stand in a side list.
 */
export class GroupEdges {
  readonly #onRepeated: (group: number) => void;
  readonly #first: Int32Array;
  /** The other edges as group × length + predecessor, in order once settled; exact up to 94 million groups. */
  #more = new Float64Array(0);
  #moreLength = 0;

  /** `onRepeated` is called with the group of each edge that is there already. */
  constructor(
    readonly length: number,
    onRepeated: (group: number) => void,
  ) {
    this.#onRepeated = onRepeated;
    this.#first = new Int32Array(length).fill(NONE);
  }

  add(group: number, prev: number): void {
    const first = this.#first[group];
    if (first === NONE) {
      this.#first[group] = prev;
    } else if (first === prev) {
      this.#onRepeated(group);
    } else {
      const at = this.#moreLength++;
      this.#more = grown(this.#more, this.#moreLength);
      this.#more[at] = group * this.length + prev;
    }
  }

  /** To be called when all edges were added and before anything is asked. */
  settle(): void {
    const more = this.#more.subarray(0, this.#moreLength).sort();
    let length = 0;
    for (const edge of more) {
      if (length > 0 && edge === more[length - 1]) this.#onRepeated(this.#groupOf(edge));
      else more[length++] = edge;
    }
    this.#more = more.subarray(0, length);
  }

  /** How many different predecessors the group has. */
  degree(group: number): number {
    if (this.#first[group] === NONE) return 0;
    if (this.#more.length === 0) return 1;
    return 1 + lowerBound(this.#more, (group + 1) * this.length) - this.#start(group);
  }

  /** The group's predecessor number `n`, from 0 and below its degree; in no order. */
  predecessor(group: number, n: number): number {
    if (n === 0) return this.#first[group];
    return this.#more[this.#start(group) + n - 1] % this.length;
  }

  /** Sets `mark` on the ancestors of every group that has one of the bits `from`. */
  markAncestors(marks: Uint16Array, from: number, mark: number): void {
    const pending: number[] = [];
    for (let group = 0; group < this.length; group++) {
      if ((marks[group] & from) === 0) continue;
      for (let at: number | undefined = group; at !== undefined; at = pending.pop()) {
        for (let n = this.degree(at) - 1; n >= 0; n--) {
          const prev = this.predecessor(at, n);
          if ((marks[prev] & mark) !== 0) continue;
          marks[prev] |= mark;
          pending.push(prev);
        }
      }
    }
  }

  /**
   * Sets `mark` on every group that is its own ancestor, looking for it among the ancestors of groups
   * with a bit of `from`. These are Tarjan's strongly connected components (SIAM Journal on Computing 1,
   * 1972) with a stack of our own, for chains are long. Takes 20 bytes a group while it runs.
   */
  markCycles(marks: Uint16Array, from: number, mark: number): void {
    const order = new Int32Array(this.length);
    const low = new Int32Array(this.length);
    const next = new Int32Array(this.length);
    const path = new Int32Array(this.length);
    const open = new Int32Array(this.length);
    let visited = 0;
    let depth = 0;
    let opened = 0;
    const enter = (group: number): void => {
      order[group] = low[group] = ++visited;
      path[depth++] = open[opened++] = group;
    };
    for (let start = 0; start < this.length; start++) {
      if ((marks[start] & from) === 0 || order[start] !== 0) continue;
      enter(start);
      while (depth > 0) {
        const at = path[depth - 1];
        if (next[at] < this.degree(at)) {
          const prev = this.predecessor(at, next[at]++);
          if (prev === at) marks[at] |= mark;
          else if (order[prev] === 0) enter(prev);
          else if (order[prev] !== CLOSED) low[at] = Math.min(low[at], order[prev]);
          continue;
        }
        depth--;
        if (depth > 0) {
          const child = path[depth - 1];
          low[child] = Math.min(low[child], low[at]);
        }
        if (low[at] !== order[at]) continue;
        const alone = open[opened - 1] === at;
        let member;
        do {
          member = open[--opened]!;
          order[member] = CLOSED;
          if (!alone) marks[member] |= mark;
        } while (member !== at);
      }
    }
  }

  #start(group: number): number {
    return lowerBound(this.#more, group * this.length);
  }

  #groupOf(edge: number): number {
    return Math.floor(edge / this.length);
  }
}
