import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { InputError } from '../../errors.js';
import { explained, FileInput, StreamInput, type Input } from './input.js';
import { tableOfLine, tableOfName, type StateTable } from './state-table.js';

/** Which input holds which table. */
export interface TableInputs {
  readonly state_groups?: Input;
  readonly state_group_edges: Input;
  readonly state_groups_state: Input;
}

export interface FoundInputs {
  readonly tables: TableInputs;
  readonly warnings: readonly string[];
}

const HOW_TO_EXPORT =
  'Export a table with psql: COPY state_groups_state TO STDOUT, without options.';

/**
 * Finds out which table each input holds: files, folders (all files in them whose names end in .copy or
 * .copy.gz or speak of one of the tables), and `-` for standard input. The content tells; only an
 * empty file is told by its name.
 *
 * @throws InputError if a table is missing or there twice, or an input can't be read or holds no table
 */
export async function findInputs(
  inputs: readonly string[],
  stdin: Readable,
  signal: AbortSignal,
): Promise<FoundInputs> {
  const found: Partial<Record<StateTable, Input>> = {};
  const warnings: string[] = [];
  const add = async (input: FileInput | StreamInput, named: boolean): Promise<void> => {
    const line = firstLine(await input.head());
    const isEmpty = line === '' || line === '\\.';
    const ofName = tableOfName(basename(input.name));
    const table = isEmpty ? ofName : tableOfLine(line);
    if (table === undefined) {
      const what = isEmpty
        ? `${input.name} is empty, and its name does not tell which table it holds.`
        : `${input.name} is not COPY text of state_groups, state_group_edges or state_groups_state: it begins with '${line.slice(0, 60)}'.`;
      if (named) throw new InputError(`${what} ${HOW_TO_EXPORT}`);
      warnings.push(`${what} It was ignored.`);
      return;
    }
    const other = found[table];
    if (other !== undefined) {
      throw new InputError(
        `Both ${other.name} and ${input.name} hold ${table}. Name one file for each table.`,
      );
    }
    if (ofName !== undefined && ofName !== table) {
      warnings.push(
        `${input.name} is named after ${ofName}, but was read as what it holds, ${table}.`,
      );
    }
    found[table] = input;
  };

  const named = new Map(inputs.map((name) => [name === '-' ? name : resolve(name), name]));
  for (const [path, name] of named) {
    if (path === '-') {
      await add(new StreamInput('standard input', stdin, signal), true);
      continue;
    }
    const kind = await statOf(name);
    if (kind.isDirectory()) {
      for (const file of await tableFiles(name)) {
        if (!named.has(resolve(file))) await add(new FileInput(file, signal), false);
      }
    } else if (kind.isFile()) {
      await add(new FileInput(name, signal), true);
    } else {
      await add(new StreamInput(name, createReadStream(name), signal), true);
    }
  }
  const { state_groups, state_group_edges, state_groups_state } = found;
  if (state_group_edges === undefined || state_groups_state === undefined) {
    const missing = state_group_edges === undefined ? 'state_group_edges' : 'state_groups_state';
    throw new InputError(
      `None of the inputs (${inputs.join(', ')}) holds ${missing}. ${HOW_TO_EXPORT}`,
    );
  }
  const tables = { state_group_edges, state_groups_state };
  return { tables: state_groups === undefined ? tables : { ...tables, state_groups }, warnings };
}

async function tableFiles(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter(
    (name) =>
      !name.startsWith('.') && (/\.copy(\.gz)?$/.test(name) || tableOfName(name) !== undefined),
  );
  const files = names.sort().map((name) => join(folder, name));
  const kinds = await Promise.all(files.map(statOf));
  return files.filter((_, i) => kinds[i]!.isFile());
}

async function statOf(path: string) {
  try {
    return await stat(path);
  } catch (error) {
    throw explained(path, error);
  }
}

function firstLine(head: Buffer): string {
  const end = head.indexOf('\n');
  return head.toString('utf8', 0, end < 0 ? head.length : end);
}
