import { Writable } from 'node:stream';
import { compressRoom, type CompressSettings } from './compress.js';
import { InputError } from './errors.js';
import type { Planner } from './planner/planner.js';
import { RoomTotals, type RoomFailure, type Totals } from './report/room-totals.js';
import type { Statistics } from './report/statistics.js';
import { endOfRooms } from './sinks/change-sink.js';
import { endWith, type Output } from './sinks/output.js';
import type { AllRooms } from './sources/all-rooms.js';
import { TemporaryFile } from './temporary-file.js';

export interface CompressRoomsSettings extends Pick<
  CompressSettings,
  'format' | 'batch' | 'transactions' | 'minSavedRows' | 'verify' | 'onProgress' | 'signal'
> {
  /** The rooms, open; they are closed when the run ends, however it ends. */
  readonly source: AllRooms;
  /** Makes the planner of a room. */
  readonly planner: () => Planner;
  /** Receives the changes of all rooms, as one script. */
  readonly output?: Output;
  /** Folder in which a room's changes wait until they are complete and verified. */
  readonly tmpdir: string;
  /** Called after each room, and awaited. */
  readonly onRoom?: (result: Statistics | RoomFailure) => Promise<void> | void;
}

/**
 * Compresses every room. What is wrong with the data of one room leaves out that room alone; everything
 * else ends the run. The output is kept if a room has changes that are worth it.
 *
 * @throws as `compressRoom`
 */
export async function compressRooms(settings: CompressRoomsSettings): Promise<Totals> {
  const started = performance.now();
  const { source, output, planner, tmpdir, onRoom, ...each } = settings;
  const totals = new RoomTotals();
  // Each write's callback has the error already.
  output?.stream.on('error', () => {});
  try {
    for await (const room of source.rooms()) {
      let result: Statistics | RoomFailure;
      try {
        const opened = await room.open();
        const changes = output && roomOutput(output.stream, tmpdir);
        result = await compressRoom({
          ...each,
          source: opened,
          planner: planner(),
          amongRooms: totals.isWritten ? 'further' : 'first',
          ...(changes && { output: changes }),
        });
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        result = { room: room.name, reason: error.message };
      }
      totals.add(result);
      await onRoom?.(result);
    }
    if (output !== undefined) {
      const { isWritten, groupsWritten, rowsInserted } = totals;
      await endWith(output, isWritten ? endOfRooms(settings, groupsWritten, rowsInserted) : '');
      if (isWritten) await output.keep();
      else await output.discard();
    }
    return totals.figures(
      totals.isWritten ? (output?.bytes ?? 0) : 0,
      source.warnings,
      (performance.now() - started) / 1000,
    );
  } catch (error) {
    await output?.discard();
    throw error;
  } finally {
    await source.close();
  }
}

/** Holds a room's changes back in a temporary file, and then puts them behind what `target` has. */
function roomOutput(target: Writable, tmpdir: string): Output {
  // Most rooms have no changes.
  let file: TemporaryFile | undefined;
  let appended = Promise.resolve();
  const append = async (chunk: Buffer): Promise<void> => {
    file ??= await TemporaryFile.create(tmpdir);
    await file.append(chunk);
  };
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, written) => {
      appended = append(chunk);
      appended.then(() => written(), written);
    },
  });
  return {
    stream,
    get bytes() {
      return file?.length ?? 0;
    },
    async keep() {
      for await (const chunk of file?.readable() ?? []) {
        await new Promise<void>((resolve, reject) => {
          // What failed first says why.
          target.write(chunk, (error) => (error ? reject(target.errored ?? error) : resolve()));
        });
      }
      await file?.close();
    },
    async discard() {
      stream.destroy();
      await appended.catch(() => {});
      await file?.close();
    },
  };
}
