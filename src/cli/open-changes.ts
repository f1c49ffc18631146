import { NO_CHANGES, NO_CHANGES_IN_JSON } from '../sinks/no-changes.js';
import type { StoredTables } from '../sources/stored-tables.js';
import { openFileOutput } from '../sinks/file-output.js';
import { endWith } from '../sinks/output.js';
import { openSpooledOutput } from '../sinks/spooled-output.js';
import { openStreamedOutput } from '../sinks/streamed-output.js';
import type { OpenOutput, SpoolSettings } from '../sinks/output.js';
import { packedOutput, packingOfName } from '../sinks/packed-output.js';
import { openTablesOutput } from '../sinks/tables-output.js';
import { VERSION } from '../version.js';
import type { CompressCommand } from './compress-arguments.js';

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
 * Says in the place of changes that there are none; for `tables` there is no folder then.
 *
 * @throws OutputError
 */
export async function writeNoChanges(
  { output, format, unbuffered }: CompressCommand,
  spool: Required<SpoolSettings>,
): Promise<void> {
  if (output === undefined || format === 'tables') return;
  const changes = await openOutput(output, unbuffered, spool);
  // As for the changes themselves, whose hidden file a second signal may leave no time to remove.
  const discard = (): void => void changes.discard();
  process.once('exit', discard);
  try {
    await endWith(changes, `${format === 'jsonl' ? NO_CHANGES_IN_JSON : NO_CHANGES}\n`, spool);
    await changes.keep();
  } finally {
    process.off('exit', discard);
    await changes.discard();
  }
}
