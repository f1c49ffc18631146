import { grown } from '../state/grown.js';

/** Edges between groups that are told by their ids, as they come: 16 bytes each. */
export class EdgeList {
  length = 0;
  groups = new Float64Array(1024);
  /** The predecessors. */
  prevs = new Float64Array(1024);

  add(group: number, prev: number): void {
    const at = this.length++;
    this.groups = grown(this.groups, this.length);
    this.prevs = grown(this.prevs, this.length);
    this.groups[at] = group;
    this.prevs[at] = prev;
  }
}
