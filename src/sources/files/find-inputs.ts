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
import { recognize, type InputFormat, type Recognized } from './recognize.js';
import { JOIN_IN_A_PIPE, PartsInput, type Part } from './parts-input.js';
import { isTable, STATE_TABLES, tableOfName, type StateTable } from './state-table.js';

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
const HOW_TO_GO_ON = `If it is a part that was cut within a line, it must come behind the part before, and both be plain COPY text: else ${JOIN_IN_A_PIPE}`;
const TABLES = 'state_groups, state_group_edges or state_groups_state';

/**
 * Finds out which tables each input holds, and in which format: files, folders (all files in them whose
 * names end in .copy, packed or not, or speak of one of the tables), and `-` for standard input. The
 * content tells; only what has no rows is told by its name, and only what goes on within a line by what
 * is named before it. Inputs that are named and hold the same table are parts of it.
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
  const names = [...inputs, ...tablesOf.keys()];
  const paths = new Set(names.map((name) => resolve(name)));
  const seen = new Map<string, string>();
  const search = new Search(temporaryFile, signal);
  let isRepeatable = true;
  for (const name of names) {
    const kind = name === '-' ? undefined : await kindOf(name);
    const identity = kind === undefined ? name : `${kind.dev}:${kind.ino}`;
    const other = seen.get(identity);
    seen.set(identity, name);
    if (kind?.isDirectory()) {
      if (other !== undefined) continue;
      const { files, others } = await tableFiles(name);
      search.passBy(others);
      for (const file of files) {
        if (paths.has(resolve(file))) continue;
        await search.add(new FileInput(file, signal), { isNamed: false, as: undefined });
      }
    } else {
      if (other !== undefined) {
        throw new InputError(
          `${other} and ${name} are one file, and it is read once: name it once.`,
        );
      }
      const input = await openInput(name, stdin, signal);
      isRepeatable &&= input.rereadable;
      await search.add(input, { isNamed: true, as: tablesOf.get(name) });
    }
  }
  return { ...search.result(names), isRepeatable };
}

/** An input that holds a table, or a part of it. */
interface Found extends Part {
  /** Whether further inputs may hold parts of the table: where it is named, and no dump. */
  readonly mayBePart: boolean;
  /** Whether it has no byte but blank ones. */
  readonly isBlank: boolean;
  /** Undefined for what is no CSV. */
  readonly isReorderedCsv: boolean | undefined;
}

interface TextBefore {
  readonly name: string;
  readonly table: StateTable;
  /** Whether it ends within a line. */
  readonly isCut: boolean;
}

/** Looks at one input after the other. */
class Search {
  readonly #temporaryFile: () => Promise<TemporaryFile>;
  readonly #signal: AbortSignal;
  readonly #found: Partial<Record<StateTable, Found[]>> = {};
  /** The input before, if it is named and plain COPY text. */
  #before: TextBefore | undefined;
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
    const recognized = await input.look(recognize);
    const before = isNamed && as === undefined ? this.#before : undefined;
    this.#before = undefined;
    const goesOn = before !== undefined && mayGoOn(before, recognized, name);
    const format = goesOn ? 'copy-text' : recognized.format;
    if (format === 'dump') {
      if (as !== undefined) {
        throw new InputError(`${name} is SQL, of which all tables are read: give it with -i.`);
      }
      return this.#addDump(input, isNamed);
    }

    const table = goesOn ? before.table : this.#tableOf(input, recognized, isNamed, as);
    if (table === undefined) return;
    if (goesOn && before.isCut && recognized.told === table) {
      this.#warnings.push(
        `${before.name} ends within a line, and ${name} was read as what it goes on with, as where one export is cut in parts. If it was an export of its own, it is cut off: then throw the changes away, and export it again.`,
      );
    }
    this.#put(table, {
      input: asCopyText(input, format, table),
      goesOn,
      mayBePart: isNamed,
      isBlank: !goesOn && recognized.told === 'empty' && recognized.beginning === '',
      isReorderedCsv: format === 'csv' ? recognized.isReordered : undefined,
    });
    // Of what is packed, or comes once, it is not known how it ends.
    const isPlainText = format === 'copy-text' && input instanceof FileInput;
    if (isNamed && isPlainText && !(await input.isPacked())) {
      this.#before = { name, table, isCut: await input.endsWithinLine() };
    }
  }

  /** The table that an input holds by itself; undefined if it is none. */
  #tableOf(
    input: FileInput | StreamInput,
    { told, beginning, advice }: Recognized,
    isNamed: boolean,
    as: StateTable | undefined,
  ): StateTable | undefined {
    const { name } = input;
    const ofName = tableOfName(basename(name));
    const held = isTable(told) ? told : undefined;
    if (as !== undefined && told === 'other' && advice !== undefined) {
      throw new InputError(`${name} holds no rows that can be read. ${advice}`);
    }
    const table = as ?? held ?? (told === 'empty' ? ofName : undefined);
    if (table === undefined) {
      const [what, otherwise] =
        told === 'empty'
          ? [isEmpty(input), HOW_TO_EXPORT]
          : [
              `${name} holds no rows of ${TABLES}, or in no format that is known: it begins with '${beginning}'.`,
              `${HOW_TO_EXPORT} ${HOW_TO_GO_ON}`,
            ];
      this.#ignore(what, isNamed, advice, otherwise);
      return undefined;
    }
    if (held !== undefined && held !== table) {
      throw new InputError(`${name} holds ${held}, and not ${table} as --table says.`);
    }
    if (ofName !== undefined && ofName !== table) {
      this.#warnings.push(
        `${name} is named after ${ofName}, but was read as what it holds, ${table}.`,
      );
    }
    return table;
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
    const tables = {
      ...(state_groups && { state_groups: joined(state_groups) }),
      state_group_edges: joined(state_group_edges),
      state_groups_state: joined(state_groups_state),
    };
    const warnings = [...this.#warnings, ...ignored.map((what) => `${what} It was ignored.`)];
    return { tables, warnings };
  }

  async #addDump(input: FileInput | StreamInput, isNamed: boolean): Promise<void> {
    const dump = await unpackedOnce(input, this.#signal);
    const tables = await dumpTables(dump, this.#temporaryFile);
    for (const table of STATE_TABLES) {
      const rows = tables[table];
      if (rows !== undefined) {
        const whole = { goesOn: false, mayBePart: false, isBlank: false };
        this.#put(table, { ...whole, input: rows, isReorderedCsv: undefined });
      }
    }
    if (Object.keys(tables).length === 0) {
      this.#ignore(`${input.name} is SQL that holds no rows of ${TABLES}.`, isNamed);
    }
  }

  #put(table: StateTable, found: Found): void {
    const others = (this.#found[table] ??= []);
    for (const other of others) refuseUnlessParts(table, other, found);
    others.push(found);
  }

  /** @throws InputError if it is named, and so must hold a table */
  #ignore(what: string, isNamed: boolean, advice?: string, otherwise = HOW_TO_EXPORT): void {
    if (isNamed) throw new InputError(`${what} ${advice ?? otherwise}`);
    this.#ignored.push(advice === undefined ? what : `${what} ${advice}`);
  }
}

/** @throws InputError if the two are no parts of one table, or can't be read as such */
function refuseUnlessParts(table: StateTable, one: Found, other: Found): void {
  const names = `${one.input.name} and ${other.input.name}`;
  if (!one.mayBePart || !other.mayBePart) {
    throw new InputError(
      `Both ${names} hold ${table}. Name the one that is to be read; parts of one export are read one after the other where each is named with -i, and none is a dump.`,
    );
  }
  const blank = [one, other].find(({ isBlank }) => isBlank);
  if (blank !== undefined) {
    throw new InputError(
      `${blank.input.name} is empty, as a failed export leaves it, and other inputs hold ${table} too. Export this part again, or do not name it if it has no rows.`,
    );
  }
  const isMixed = one.isReorderedCsv !== other.isReorderedCsv;
  if (isMixed && one.isReorderedCsv !== undefined && other.isReorderedCsv !== undefined) {
    throw new InputError(
      `Of ${names} only one begins with the names of its columns, or they stand in another order there. They can't be read as parts of ${table}: ${JOIN_IN_A_PIPE}`,
    );
  }
}

/** One input of a table's parts. */
function joined(parts: readonly Part[]): Input {
  return parts.length === 1 ? parts[0].input : new PartsInput(parts);
}

/** Whether an input is what the one before goes on with, though by itself it may hold another table or none. */
function mayGoOn(
  { table, isCut }: TextBefore,
  { format, told, isFragment, ofSecondLine, advice }: Recognized,
  name: string,
): boolean {
  // A part of a line tells nothing.
  if (isFragment) return true;
  if (!isCut) return false;
  if (ofSecondLine !== undefined && ofSecondLine !== 'other') return ofSecondLine === table;
  // A rest that begins with a backslash looks like a command of psql's, but a dump has further lines.
  if (format === 'dump') return ofSecondLine === undefined;
  if (isTable(told)) return format === 'copy-text' && told === table;
  // The rest of a line may be blank, as its line feed is.
  if (told === 'empty') return (tableOfName(basename(name)) ?? table) === table;
  return advice === undefined;
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
