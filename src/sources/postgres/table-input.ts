import type pg from 'pg';
import type { Input } from '../files/input.js';
import type { StoredTables } from '../stored-tables.js';
import { CopyStream } from './copy-stream.js';

// In no order, and no order is to be seen to, so the server reads the tables from end to end.
const STORED_EDGES = 'SELECT state_group, prev_state_group FROM state_group_edges';
const STORED_ROWS =
  'SELECT state_group, room_id, type, state_key, event_id FROM state_groups_state';

/** A table's rows, as statements give them. */
export class TableInput implements Input {
  readonly name: string;
  readonly rereadable = false;
  readonly #client: pg.Client;
  readonly #statements: Iterable<string>;

  constructor(client: pg.Client, table: string, statements: Iterable<string>) {
    this.name = `the database's table ${table}`;
    this.#client = client;
    this.#statements = statements;
  }

  read(): AsyncIterable<Buffer> {
    return new CopyStream(this.#client, this.#statements, () => `while ${this.name} was read`);
  }

  place(index: number): string {
    return `Row ${index + 1} of ${this.name}`;
  }
}

/** The tables as the snapshot of `client` has them. */
export function storedTables(client: pg.Client): StoredTables {
  return {
    edges: new TableInput(client, 'state_group_edges', [STORED_EDGES]),
    rows: new TableInput(client, 'state_groups_state', [STORED_ROWS]),
  };
}
