import type pg from 'pg';
import { CopyStream } from './copy-stream.js';
import { rowsStatement, statementParts } from './statements.js';

/** The rows of groups, in the order of `ids`, as chunks of COPY text, from one COPY after the other. */
export function rowStream(client: pg.Client, ids: Float64Array): CopyStream {
  let [first] = ids;
  function* statements(): Generator<string> {
    for (const part of statementParts(ids)) {
      [first] = part;
      yield rowsStatement(part);
    }
  }
  return new CopyStream(
    client,
    statements(),
    (last) => `while the rows ${position(first, last)} were read`,
  );
}

/** How far the rows came, as the last chunk shows it, which may begin and end within a line. */
function position(first: number, last: Buffer | undefined): string {
  const [, group] = /.*\n(\d+)\t/s.exec(last?.toString('latin1') ?? '') ?? [];
  return group === undefined ? `from state group ${first} on` : `after state group ${group}`;
}
