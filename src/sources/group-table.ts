/** `prev` of a group without predecessor. */
export const NO_PREDECESSOR = -1;

/** The group is in the chosen range and room: a planner may give it another predecessor. */
export const IN_RANGE = 1;
/** The group's encoding must stay as stored, because an irregular group reads through it. */
export const FROZEN = 2;
/** The group's own edges make its state depend on more than a chain: neither planned on nor a base. */
export const UNREADABLE = 4;

/** What is irregular in a room's edges: how often, and the first few groups concerned. */
export interface Irregularity {
  readonly kind:
    | 'several-edges'
    | 'larger-predecessor'
    | 'own-ancestor'
    | 'repeated-edge'
    | 'missing-group'
    | 'other-room';
  readonly count: number;
  readonly examples: readonly number[];
}

/**
 * The headers of a room's state groups in ascending id, in 17 bytes a group. An index into the table
 * stands for a group in everything that follows.
 */
export interface GroupTable {
  readonly length: number;
  /** State group ids, ascending. */
  readonly ids: Float64Array;
  /** Index of the predecessor, or `NO_PREDECESSOR`. Always smaller than the group's own index, except in `UNREADABLE` groups. */
  readonly prev: Int32Array;
  /** How many groups of this table name the group as predecessor. */
  readonly successors: Int32Array;
  /** `IN_RANGE`, `FROZEN` and `UNREADABLE` bits. */
  readonly flags: Uint8Array;
  readonly irregularities: readonly Irregularity[];
}

/**
 * Collects ids and edges in any order, then puts them in order and finds what is irregular.
 *
 * A source adds the groups in range and their edges, asks for `missingPredecessors()` and adds those
 * with their edges until there are none, then calls `finish()`.
 */
export class GroupTableBuilder {
  /** Adds a group of the room that is in range. */
  addGroup(_id: number): void {
    throw new Error('to come');
  }

  /** Adds an ancestor that is out of range, of another room, or known from edges alone. */
  addAncestor(_id: number, _reason: 'out-of-range' | 'other-room' | 'missing-group'): void {
    throw new Error('to come');
  }

  /** Adds an edge whose `group` was or will be added. */
  addEdge(_group: number, _prev: number): void {
    throw new Error('to come');
  }

  /** Ids that edges name as predecessors and that were not added yet, ascending. */
  missingPredecessors(): Float64Array {
    throw new Error('to come');
  }

  finish(): GroupTable {
    throw new Error('to come');
  }
}
