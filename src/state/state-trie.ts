import type { EntryPool } from './entry-pool.js';
import { grown } from './grown.js';

const BITS = 4;
const WIDTH = 1 << BITS;
const MASK = WIDTH - 1;

/** The root of the state without entries. */
export const EMPTY = 0;
/** `difference`: the first state has a key that the second has not. */
export const LACKS_KEY = -1;
/** `difference`: more entries differ than asked for. */
export const OVER_LIMIT = -2;

/**
 * States as persistent radix tries over key numbers: 16 places a node, nodes shared between states and
 * counted. A state that differs in one key from another costs the nodes on one path, and comparing two
 * states costs what differs, because equal subtrees are mostly one node.
 *
 * A root is a node number. Whoever has one holds it once and gives it up by `release`; `set` and
 * `remove` take the hold over and return a root that the caller holds. Nodes held once are changed in
 * place.
 */
export class StateTrie {
  /** The key for which `difference` last returned `LACKS_KEY`. */
  lackedKey = -1;
  /** Levels above the leaves, the same for all roots. */
  #height = 0;
  /** Places: node numbers, or in leaves entry numbers plus one; 0 is nothing. */
  #nodes = new Int32Array(WIDTH * 64);
  #holders = new Int32Array(64);
  /** Node 0 is the empty one, never changed and never counted. */
  #length = 1;
  #firstFree = 0;

  constructor(readonly entries: EntryPool) {}

  /** Keys below this number have a place. */
  get capacity(): number {
    return WIDTH ** (this.#height + 1);
  }

  /**
   * Adds a level, so that `capacity` grows; each live root becomes the first child of a new one. States that
   * have one root still have one.
   */
  deepen(roots: Int32Array, length: number): void {
    this.#height++;
    const above = new Map<number, number>();
    for (let i = 0; i < length; i++) {
      const root = roots[i];
      if (root === EMPTY) continue;
      const known = above.get(root);
      if (known !== undefined) {
        this.#holders[known]++;
        this.#holders[root]--;
        roots[i] = known;
        continue;
      }
      const node = this.#allocate();
      this.#nodes[node * WIDTH] = root;
      above.set(root, node);
      roots[i] = node;
    }
  }

  /** The entry of `key`, which is below `capacity`, or -1. */
  get(root: number, key: number): number {
    const nodes = this.#nodes;
    let node = root;
    for (let shift = this.#height * BITS; shift > 0; shift -= BITS) {
      node = nodes[node * WIDTH + ((key >>> shift) & MASK)]!;
    }
    return nodes[node * WIDTH + (key & MASK)] - 1;
  }

  hold(root: number): number {
    if (root !== EMPTY) this.#holders[root]++;
    return root;
  }

  release(root: number): void {
    this.#release(root, this.#height);
  }

  /** The state with `entry` as the entry of its key; the leaf holds it once more. */
  set(root: number, entry: number): number {
    const key = this.entries.key[entry];
    root = this.#own(root, this.#height);
    const at = this.#leafPlace(root, key);
    const old = this.#nodes[at] - 1;
    this.#nodes[at] = entry + 1;
    this.entries.holders[entry]++;
    if (old >= 0) this.entries.release(old);
    return root;
  }

  /** The state without `key`. Of a node with nothing left in it nothing stays, lest comparing goes through it. */
  remove(root: number, key: number): number {
    return this.#remove(root, key, this.#height);
  }

  /**
   * Compares two states. Hands the entries of `to` that `from` lacks or has otherwise to `found`, up to
   * `limit` of them, and returns how many; or `LACKS_KEY` if `from` has a key that `to` has not, or
   * `OVER_LIMIT`. Writes at most `limit` entries.
   */
  difference(from: number, to: number, found: Int32Array, limit: number): number {
    return this.#height > 0
      ? this.#difference(from, to, this.#height, found, 0, limit)
      : this.#leafDifference(from, to, found, 0, limit);
  }

  /** Calls `visit` with each entry of the state, in the order of key numbers. */
  forEach(root: number, visit: (entry: number) => void): void {
    this.#forEach(root, this.#height, visit);
  }

  #difference(
    from: number,
    to: number,
    level: number,
    found: Int32Array,
    count: number,
    limit: number,
  ): number {
    const nodes = this.#nodes;
    const a = from * WIDTH;
    const b = to * WIDTH;
    for (let i = 0; i < WIDTH; i++) {
      const old = nodes[a + i];
      const now = nodes[b + i];
      if (old === now) continue;
      count =
        level > 1
          ? this.#difference(old, now, level - 1, found, count, limit)
          : this.#leafDifference(old, now, found, count, limit);
      if (count < 0) return count;
    }
    return count;
  }

  #leafDifference(
    from: number,
    to: number,
    found: Int32Array,
    count: number,
    limit: number,
  ): number {
    const nodes = this.#nodes;
    const a = from * WIDTH;
    const b = to * WIDTH;
    for (let i = 0; i < WIDTH; i++) {
      const now = nodes[b + i];
      if (nodes[a + i] === now) continue;
      if (now === 0) {
        this.lackedKey = this.entries.key[nodes[a + i] - 1];
        return LACKS_KEY;
      }
      if (count === limit) return OVER_LIMIT;
      found[count++] = now - 1;
    }
    return count;
  }

  #forEach(node: number, level: number, visit: (entry: number) => void): void {
    for (let i = 0; i < WIDTH; i++) {
      const child = this.#nodes[node * WIDTH + i];
      if (child === 0) continue;
      if (level > 0) this.#forEach(child, level - 1, visit);
      else visit(child - 1);
    }
  }

  #remove(node: number, key: number, level: number): number {
    if (node === EMPTY) return EMPTY;
    const own = this.#own(node, level);
    const at = own * WIDTH + ((key >>> (level * BITS)) & MASK);
    const old = this.#nodes[at];
    if (level > 0) {
      const left = this.#remove(old, key, level - 1);
      this.#nodes[at] = left;
    } else {
      this.#nodes[at] = 0;
      if (old !== 0) this.entries.release(old - 1);
    }
    if (!this.#isEmpty(own)) return own;
    this.#release(own, level);
    return EMPTY;
  }

  #isEmpty(node: number): boolean {
    const end = (node + 1) * WIDTH;
    for (let at = node * WIDTH; at < end; at++) if (this.#nodes[at] !== 0) return false;
    return true;
  }

  #leafPlace(root: number, key: number): number {
    let node = root;
    for (let level = this.#height; level > 0; level--) {
      const at = node * WIDTH + ((key >>> (level * BITS)) & MASK);
      node = this.#own(this.#nodes[at], level - 1);
      this.#nodes[at] = node;
    }
    return node * WIDTH + (key & MASK);
  }

  /** `node` if only the caller holds it, else a copy in its place. */
  #own(node: number, level: number): number {
    if (node !== EMPTY && this.#holders[node] === 1) return node;
    const copy = this.#allocate();
    if (node === EMPTY) return copy;
    const nodes = this.#nodes;
    const holders = level > 0 ? this.#holders : this.entries.holders;
    const base = level > 0 ? 0 : 1;
    const from = node * WIDTH;
    const to = copy * WIDTH;
    for (let i = 0; i < WIDTH; i++) {
      const child = nodes[from + i];
      nodes[to + i] = child;
      if (child !== 0) holders[child - base]++;
    }
    this.#holders[node]--;
    return copy;
  }

  #release(node: number, level: number): void {
    if (node === EMPTY || --this.#holders[node] > 0) return;
    const at = node * WIDTH;
    for (let i = 0; i < WIDTH; i++) {
      const child = this.#nodes[at + i];
      if (child === 0) continue;
      if (level > 0) this.#release(child, level - 1);
      else this.entries.release(child - 1);
    }
    this.#nodes[at] = this.#firstFree;
    this.#firstFree = node;
  }

  #allocate(): number {
    let node = this.#firstFree;
    if (node !== 0) {
      this.#firstFree = this.#nodes[node * WIDTH]!;
    } else {
      node = this.#length++;
      if (node === this.#holders.length) {
        this.#holders = grown(this.#holders, this.#length);
        this.#nodes = grown(this.#nodes, this.#length * WIDTH);
      }
    }
    this.#nodes.fill(0, node * WIDTH, (node + 1) * WIDTH);
    this.#holders[node] = 1;
    return node;
  }
}
