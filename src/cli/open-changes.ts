import { finished } from 'node:stream/promises';
import { NO_CHANGES } from '../sinks/no-changes.js';
import type { StoredTables } from '../sources/stored-tables.js';
import { openFileOutput, openSpooledOutput, openStreamedOutput } from '../sinks/output.js';
import type { OpenOutput, SpoolSettings } from '../sinks/output.js';
import { packedOutput, packingOfName } from '../sinks/packed-output.js';
import { openTablesOutput } from '../sinks/tables-output.js';
import { VERSION } from '../version.js';
import type { CompressCommand } from './command-line.js';

/**
 * Opens what `-o` names for changes, in the form that `--format` and the name's end ask for; undefined without -o.
 *
 * @param stored the tables as they are stored, once all is read
 */
export async function openChanges(
  command: CompressCommand,
  spool: SpoolSettings,
  stored: () => StoredTables,
): Promise<OpenOutput | undefined> {
  const { output, format, room } = command;
  if (output === undefined) return undefined;
  if (format === 'tables') {
    const header = [
      `Written by synapse_compress_state ${VERSION}.`,
      room === undefined ? 'All rooms.' : `Room ${JSON.stringify(room)}.`,
    ];
    return openTablesOutput(output, { ...spool, stored, header });
  }
  return openOutput(output, command.unbuffered, spool);
}

/** Opens a file, or `-` for standard output, of whose end the name says how it is packed. */
async function openOutput(
  output: string,
  unbuffered: boolean,
  spool: SpoolSettings,
): Promise<OpenOutput> {
  if (output === '-') {
    return unbuffered
      ? openStreamedOutput(process.stdout, 'standard output')
      : openSpooledOutput(process.stdout, 'standard output', spool);
  }
  const packing = packingOfName(output);
  const file = await openFileOutput(output, spool);
  if (packing === undefined) return file;
  try {
    return await packedOutput(file, packing);
  } catch (error) {
    await file.discard();
    throw error;
  }
}

/**
 * Writes in the place of changes that there are none: nothing is what JSON has for that, and for `tables` no
 * folder is.
 *
 * @throws OutputError
 */
export async function writeNoChanges(
  { output, format, unbuffered }: CompressCommand,
  spool: SpoolSettings,
): Promise<void> {
  if (output === undefined || format === 'tables') return;
  const changes = await openOutput(output, unbuffered, spool);
  try {
    changes.stream.end(format === 'jsonl' ? '' : `${NO_CHANGES}\n`);
    await finished(changes.stream);
    await changes.keep();
  } finally {
    await changes.discard();
  }
}
