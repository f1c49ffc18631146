import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { InputError } from '../../errors.js';
import type { TemporaryFile } from '../../temporary-file.js';
import { binaryToCopyText } from './binary.js';
import { csvToCopyText } from './csv.js';
import { dumpTables } from './dump.js';
import { explained, FileInput, kindOf, openInput, StreamInput, type Input } from './input.js';
import { jsonToCopyText } from './json.js';
import { recognize, type InputFormat } from './recognize.js';
import { STATE_TABLES, tableOfName, type StateTable } from './state-table.js';

/** Which input holds which table. */
export interface TableInputs {
  readonly state_groups?: Input;
  readonly state_group_edges: Input;
  readonly state_groups_state: Input;
}

export interface FoundInputs {
  readonly tables: TableInputs;
  /** Whether all of it is in files, so that the same can be found again. */
  readonly isRepeatable: boolean;
  readonly warnings: readonly string[];
}

export interface GivenInputs {
  /** Files, folders, and `-` for standard input. */
  readonly inputs: readonly string[];
  /** Files, or `-`, of which it is known what they hold. */
  readonly tables: Readonly<Partial<Record<StateTable, string>>>;
  readonly stdin: Readable;
}

const HOW_TO_EXPORT =
  "Export a table with psql: COPY state_groups_state TO STDOUT; or dump all: pg_dump -t 'state_group*'.";
/** Of so many files it is said why they hold no table. */
const REASONS = 5;
const TABLES = 'state_groups, state_group_edges or state_groups_state';

/**
 * Finds out which tables each input holds, and in which format: files, folders (all files in them whose
 * names end in .copy, packed or not, or speak of one of the tables), and `-` for standard input. The
 * content tells; only what has no rows is told by its name.
 *
 * @throws InputError if a table is missing or there twice, or an input can't be read or holds no table
 */
export async function findInputs(
  given: GivenInputs,
  temporaryFile: () => Promise<TemporaryFile>,
  signal: AbortSignal,
): Promise<FoundInputs> {
  const { inputs, stdin } = given;
  const tablesOf = new Map<string, StateTable>();
  for (const table of STATE_TABLES) {
    const name = given.tables[table];
    if (name !== undefined) tablesOf.set(name, table);
  }
  const named = new Map(
    [...inputs, ...tablesOf.keys()].map((name) => [name === '-' ? name : resolve(name), name]),
  );
  const search = new Search(temporaryFile, signal);
  let isRepeatable = true;
  for (const [path, name] of named) {
    if (path !== '-' && (await kindOf(name)).isDirectory()) {
      const { files, others } = await tableFiles(name);
      search.passBy(others);
      for (const file of files) {
        if (named.has(resolve(file))) continue;
        await search.add(new FileInput(file, signal), { isNamed: false, as: undefined });
      }
    } else {
      const input = await openInput(name, stdin, signal);
      isRepeatable &&= input.rereadable;
      await search.add(input, { isNamed: true, as: tablesOf.get(name) });
    }
  }
  return { ...search.result([...named.values()]), isRepeatable };
}

/** Looks at one input after the other. */
class Search {
  readonly #temporaryFile: () => Promise<TemporaryFile>;
  readonly #signal: AbortSignal;
  readonly #found: Partial<Record<StateTable, Input>> = {};
  readonly #warnings: string[] = [];
  /** Why files hold no table. */
  readonly #ignored: string[] = [];
  /** Files of folders whose names speak of no table. */
  readonly #passedBy: string[] = [];

  constructor(temporaryFile: () => Promise<TemporaryFile>, signal: AbortSignal) {
    this.#temporaryFile = temporaryFile;
    this.#signal = signal;
  }

  passBy(files: readonly string[]): void {
    this.#passedBy.push(...files);
  }

  /** `isNamed` says that it is no file of a folder, `as` that it holds this table. */
  async add(
    input: FileInput | StreamInput,
    { isNamed, as }: { isNamed: boolean; as: StateTable | undefined },
  ): Promise<void> {
    const { name } = input;
    const { format, told, beginning, advice } = await input.look(recognize);
    if (format === 'dump') {
      if (as !== undefined) {
        throw new InputError(`${name} is SQL, of which all tables are read: give it with -i.`);
      }
      return this.#addDump(input, isNamed);
    }

    const ofName = tableOfName(basename(name));
    const held = told === 'other' || told === 'incomplete' || told === 'empty' ? undefined : told;
    if (as !== undefined && told === 'other' && advice !== undefined) {
      throw new InputError(`${name} holds no rows that can be read. ${advice}`);
    }
    const table = as ?? held ?? (told === 'empty' ? ofName : undefined);
    if (table === undefined) {
      const what =
        told === 'empty'
          ? isEmpty(input)
          : `${name} holds no rows of ${TABLES}, or in no format that is known: it begins with '${beginning}'.`;
      return this.#ignore(what, isNamed, advice);
    }
    if (held !== undefined && held !== table) {
      throw new InputError(`${name} holds ${held}, and not ${table} as --table says.`);
    }
    if (ofName !== undefined && ofName !== table) {
      this.#warnings.push(
        `${name} is named after ${ofName}, but was read as what it holds, ${table}.`,
      );
    }
    this.#put(table, asCopyText(input, format, table));
  }

  /** @throws InputError if a table is missing; `names` are those of all inputs */
  result(names: readonly string[]): Omit<FoundInputs, 'isRepeatable'> {
    const { state_groups, state_group_edges, state_groups_state } = this.#found;
    const ignored = this.#ignored;
    if (state_group_edges === undefined || state_groups_state === undefined) {
      const missing = state_group_edges === undefined ? 'state_group_edges' : 'state_groups_state';
      const others = ignored.length > REASONS ? [`And ${ignored.length - REASONS} more.`] : [];
      const reasons = [
        ...ignored.slice(0, REASONS),
        ...others,
        ...notLookedAt(this.#passedBy),
        HOW_TO_EXPORT,
      ];
      throw new InputError(
        `None of the inputs (${names.join(', ')}) holds ${missing}. ${reasons.join(' ')}`,
      );
    }
    const tables = { ...(state_groups && { state_groups }), state_group_edges, state_groups_state };
    const warnings = [...this.#warnings, ...ignored.map((what) => `${what} It was ignored.`)];
    return { tables, warnings };
  }

  async #addDump(input: FileInput | StreamInput, isNamed: boolean): Promise<void> {
    const dump = await unpackedOnce(input, this.#signal);
    const tables = await dumpTables(dump, this.#temporaryFile);
    for (const table of STATE_TABLES) {
      const rows = tables[table];
      if (rows !== undefined) this.#put(table, rows);
    }
    if (Object.keys(tables).length === 0) {
      this.#ignore(`${input.name} is SQL that holds no rows of ${TABLES}.`, isNamed);
    }
  }

  #put(table: StateTable, input: Input): void {
    const other = this.#found[table];
    if (other !== undefined) {
      throw new InputError(
        `Both ${other.name} and ${input.name} hold ${table}. Name one file for each table; if they are parts of one export, join them in a pipe: cat PARTS | synapse_compress_state -i - …`,
      );
    }
    this.#found[table] = input;
  }

  /** @throws InputError if it is named, and so must hold a table */
  #ignore(what: string, isNamed: boolean, advice?: string): void {
    if (isNamed) throw new InputError(`${what} ${advice ?? HOW_TO_EXPORT}`);
    this.#ignored.push(advice === undefined ? what : `${what} ${advice}`);
  }
}

function isEmpty({ name, rereadable }: Input): string {
  return rereadable
    ? `${name} is empty, and its name does not tell which table it holds: say it with --table.`
    : `Nothing came from ${name}: see what the program before it says. If it is a table without rows, say which with --table.`;
}

function notLookedAt(files: readonly string[]): string[] {
  if (files.length === 0) return [];
  const others = files.length > REASONS ? ` and ${files.length - REASONS} more` : '';
  return [
    `Not looked at, as their names speak of no table: ${files.slice(0, REASONS).join(', ')}${others}. To read them, name them with -i.`,
  ];
}

/** A dump that is packed is read but once, for there is no way into the middle of it. */
async function unpackedOnce(
  input: FileInput | StreamInput,
  signal: AbortSignal,
): Promise<FileInput | StreamInput> {
  return input instanceof FileInput && (await input.isPacked())
    ? new StreamInput(input.name, createReadStream(input.name), signal)
    : input;
}

/** The input's rows as COPY text. */
function asCopyText(input: Input, format: Exclude<InputFormat, 'dump'>, table: StateTable): Input {
  if (format === 'copy-text') return input;
  const { name, rereadable } = input;
  const toCopyText = CONVERTERS[format];
  return {
    name,
    rereadable,
    isSlow: format === 'json',
    read: () => toCopyText(input.read(), table, name),
    place: (index) => `Record ${index + 1} of ${name}`,
  };
}

const CONVERTERS = {
  csv: csvToCopyText,
  binary: binaryToCopyText,
  json: jsonToCopyText,
} as const;

/** The files that are read where these files, folders and `-` are given. */
export async function filesOf(inputs: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  for (const input of inputs) {
    if (input !== '-' && (await kindOf(input)).isDirectory())
      files.push(...(await tableFiles(input)).files);
    else files.push(input);
  }
  return files;
}

/** Those of a folder's files that are looked at, and the others. */
async function tableFiles(
  folder: string,
): Promise<{ readonly files: string[]; readonly others: string[] }> {
  const all = await readdir(folder).catch((error: unknown) => {
    throw explained(folder, error);
  });
  if (all.includes('toc.dat')) {
    throw new InputError(
      `${folder} is an archive that pg_dump -Fd made. Pipe it through pg_restore: pg_restore -f - ${folder} | synapse_compress_state -i - …`,
    );
  }
  const paths = all
    .filter((name) => !name.startsWith('.'))
    .sort()
    .map((name) => join(folder, name));
  const speaks = (path: string): boolean =>
    /\.copy(\.gz|\.zst)?$/.test(path) || tableOfName(basename(path)) !== undefined;
  const spoken = paths.filter(speaks);
  const kinds = await Promise.all(spoken.map(kindOf));
  return {
    files: spoken.filter((_, i) => kinds[i].isFile()),
    others: paths.filter((path) => !speaks(path)),
  };
}
