import type { StoredTables } from '../sources/stored-tables.js';
import { openFileOutput, openSpooledOutput, openStreamedOutput } from '../sinks/output.js';
import type { OpenOutput, SpoolSettings } from '../sinks/output.js';
import { packedOutput, packingOfName } from '../sinks/packed-output.js';
import { openTablesOutput } from '../sinks/tables-output.js';
import { VERSION } from '../version.js';
import type { CompressCommand } from './command-line.js';

/**
 * Opens what `-o` names, in the form that `--format` and the name's end ask for; undefined without -o.
 *
 * @param stored the tables as they are stored, once all is read
 */
export async function openChanges(
  { output, format, unbuffered, room }: CompressCommand,
  spool: SpoolSettings,
  stored: () => StoredTables,
): Promise<OpenOutput | undefined> {
  if (output === undefined) return undefined;
  if (format === 'tables') {
    const header = [
      `Written by synapse_compress_state ${VERSION}.`,
      room === undefined ? 'All rooms.' : `Room ${JSON.stringify(room)}.`,
    ];
    return openTablesOutput(output, { ...spool, stored, header });
  }
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
