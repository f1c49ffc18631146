import type { ChangedGroup } from '../planner/planned-group.js';

/** A change as a file has it, and the room that it is of. */
export interface RoomChange {
  readonly room: string;
  readonly group: ChangedGroup;
}

/** The same without what was stored before, which SQL for a stopped server does not tell. */
export interface NewEncoding {
  readonly room: string;
  readonly group: {
    readonly stateGroup: number;
    readonly newPredecessor: number | undefined;
    readonly change: { readonly rows: Buffer };
  };
}

/** What a file of changes is read from. */
export interface ChangeInput {
  /** Each chunk need be valid only until the next is asked for. */
  read(): AsyncIterable<Buffer>;
  /** What to call line number `index`, from 0, where a sentence begins. */
  place(index: number): string;
}
