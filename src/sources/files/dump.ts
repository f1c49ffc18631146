import { InputError } from '../../errors.js';
import type { TemporaryFile } from '../../temporary-file.js';
import { DumpReader, type DumpBlock } from './dump-reader.js';
import { CopiedInput, FileInput, type Input } from './input.js';
import { STATE_TABLES, type StateTable } from './state-table.js';

type Blocks = Readonly<Record<StateTable, DumpBlock>>;

/** A backslash begins a command of psql's, but not where it is COPY's end marker. */
const BEGINNINGS = /^(?:--|\/\*|\\(?!\.$)|SET |SELECT |COPY |CREATE |ALTER |INSERT |BEGIN)/;

/** Whether what begins with this line is SQL as pg_dump and pg_restore write it. */
export function isDump(line: string): boolean {
  return BEGINNINGS.test(line);
}

/**
 * Finds the tables in a dump in one pass. A file is left where it is: the pass ends where the last of
 * the tables begins, and they are read there. Of a stream the tables are copied to temporary files, but
 * for the rows if they come last, as pg_dump has them: these are read as they pass.
 *
 * @param dump not packed, if it is a file
 * @throws InputError if the dump has a table twice, or one that can't be read
 */
export async function dumpTables(
  dump: Input,
  temporaryFile: () => Promise<TemporaryFile>,
): Promise<Partial<Record<StateTable, Input>>> {
  const reader = new DumpReader(dump.name, dump.read());
  try {
    return await findTables(dump, reader, temporaryFile);
  } catch (error) {
    await reader.close();
    throw error;
  }
}

async function findTables(
  dump: Input,
  reader: DumpReader,
  temporaryFile: () => Promise<TemporaryFile>,
): Promise<Partial<Record<StateTable, Input>>> {
  const { name } = dump;
  const blocks: Partial<Record<StateTable, DumpBlock>> = {};
  const tables: Partial<Record<StateTable, Input>> = {};
  for (;;) {
    const block = await reader.nextBlock();
    if (block === undefined) return tables;
    const { table } = block;
    const earlier = blocks[table];
    if (earlier !== undefined) throw twice(name, earlier, block);
    blocks[table] = block;
    const all = STATE_TABLES.every((other) => other in blocks) ? (blocks as Blocks) : undefined;
    const place = (index: number): string => `Line ${block.line + index} of ${name}`;

    if (dump instanceof FileInput) {
      const read = () =>
        rowsOf(new DumpReader(name, dump.readFrom(block.position), block), name, block, all);
      tables[table] = { name, place, rereadable: true, read };
      if (all === undefined) continue;
      await reader.close();
      return tables;
    }
    if (all !== undefined && table === 'state_groups_state') {
      const read = () => rowsOf(reader, name, block, all);
      tables[table] = { name, place, rereadable: false, read };
      return tables;
    }
    const file = await temporaryFile();
    for await (const lines of reader.rows(block)) await file.append(lines);
    tables[table] = new CopiedInput({ name, place }, file);
  }
}

/** `all` are the blocks of all tables, once the last of them was found, which this one is then. */
async function* rowsOf(
  reader: DumpReader,
  name: string,
  block: DumpBlock,
  all: Blocks | undefined,
): AsyncGenerator<Buffer> {
  try {
    yield* reader.rows(block);
    if (all === undefined) return;
    // What comes behind the last table was not looked at, and who writes to a pipe wants it to be read.
    const other = await reader.nextBlock();
    if (other !== undefined) throw twice(name, all[other.table], other);
  } finally {
    await reader.close();
  }
}

function twice(name: string, one: DumpBlock, other: DumpBlock): InputError {
  return new InputError(
    `${name} has the rows of ${other.table} twice: of ${one.tableName} from line ${one.line}, and of ${other.tableName} from line ${other.line}. Dump one database, and of it one schema.`,
  );
}
