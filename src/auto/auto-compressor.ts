import { Rewriter } from '../apply/rewriter.js';
import { vacuum } from '../apply/table-space.js';
import {
  BusyError,
  codeOf,
  DatabaseError,
  OutputError,
  RoomNotFoundError,
  UsageError,
} from '../errors.js';
import { counted } from '../report/counted.js';
import { lossBehind } from '../sources/postgres/database-errors.js';
import type { AutoSettings, AutoSummary } from './auto-settings.js';
import {
  createTables,
  forgetRoomsThatAreGone,
  forgetTheFuture,
  lowestUncompressed,
  roomsWithoutGroups,
  saveLowestUncompressed,
} from './bookkeeping.js';
import { RoomCompressor } from './room-compressor.js';
import { readEstimates, unknownRoom } from './room-estimates.js';
import type { RoomEstimate } from './room-estimates.js';

/** A room that adaptive has compressed is taken up again when this part of its rows can be saved. */
const WORTHWHILE = 0.1;

/**
 * Compresses the rooms of a database by themselves, beside a running Synapse. Progress is kept in the
 * tables of rust-synapse-compress-state's auto compressor, in the transaction that ends a room or chunk;
 * so whatever cuts a run off, the next one or the old tool goes on where it was.
 *
 * A room that fails is set aside, and the run goes on, unless the disk of the server is full.
 *
 * @param summary filled with what was done, also where an error ends the run
 * @throws BusyError if another compressor writes to the database; DatabaseError if it can't be reached or
 *   lacks something; OutputError if changes can't be kept in `tmpdir`; UsageError
 */
export async function autoCompress(settings: AutoSettings, summary: AutoSummary): Promise<void> {
  const { dsn, env, signal, log, dryRun } = settings;
  const onTrouble = (sentence: string): void => log('warning', sentence);
  const rewriter = dryRun ? undefined : await Rewriter.open({ dsn, env, signal, onTrouble });
  const compressor = new AutoCompressor(settings, rewriter);
  try {
    await compressor.run();
  } finally {
    Object.assign(summary, compressor.summary());
    await rewriter?.close();
  }
}

class AutoCompressor {
  readonly #settings: AutoSettings;
  readonly #rewriter: Rewriter | undefined;
  readonly #compressor: RoomCompressor;
  readonly #started = performance.now();
  /** Aborted at the end of the time budget; held here, as `AbortSignal.any` lets it be collected. */
  readonly #timeIsUp: AbortSignal | undefined;
  /** Aborted by a signal or at the end of the time budget. */
  readonly #stop: AbortSignal;
  readonly #rooms = new Set<string>();
  readonly #failed: { room: string; reason: string }[] = [];

  constructor(settings: AutoSettings, rewriter: Rewriter | undefined) {
    const { signal, timeBudget } = settings;
    this.#settings = settings;
    this.#rewriter = rewriter;
    this.#timeIsUp = timeBudget === undefined ? undefined : AbortSignal.timeout(timeBudget);
    this.#stop = this.#timeIsUp === undefined ? signal : AbortSignal.any([signal, this.#timeIsUp]);
    const lastMoment = this.#started + (timeBudget ?? Infinity);
    this.#compressor = new RoomCompressor(settings, rewriter, this.#stop, lastMoment);
  }

  async run(): Promise<void> {
    const { strategy, order, log } = this.#settings;
    const rewriter = this.#rewriter;
    if (rewriter !== undefined) {
      await rewriter.transaction(createTables);
      const gone = await rewriter.transaction(forgetRoomsThatAreGone);
      if (gone > 0)
        log(
          'info',
          `Forgot the progress of ${counted(gone, 'room that has', 'rooms that have')} no state groups.`,
        );
      const future = await rewriter.transaction(forgetTheFuture);
      if (future > 0)
        log(
          'warning',
          `The saved progress of ${counted(future, 'room')} is of state groups that are not there yet, as after the tables were restored: it is forgotten, and the rooms are begun anew.`,
        );
    }
    try {
      if (strategy.name === 'levels' && order === 'id' && rewriter !== undefined) {
        await this.#byLowestGroup(rewriter);
      } else {
        await this.#byEstimate();
      }
    } catch (error) {
      if (!this.#isStop(error)) throw error;
    }
    if (this.#settings.vacuum && rewriter !== undefined) await this.#vacuum(rewriter);
  }

  async #vacuum(rewriter: Rewriter): Promise<void> {
    const { signal, log } = this.#settings;
    if (this.#compressor.counts.rowsDeleted === 0 || signal.aborted) return;
    if (this.#stop.aborted) {
      log('warning', 'VACUUM was not run, because the time is up.');
      return;
    }
    const whyNot = await vacuum(rewriter);
    if (whyNot === undefined) log('info', 'Vacuumed the tables.');
    else log('warning', whyNot);
  }

  summary(): AutoSummary {
    const { signal } = this.#settings;
    return {
      rooms: this.#rooms.size,
      ...this.#compressor.counts,
      failed: this.#failed,
      stoppedBy: signal.aborted ? 'signal' : this.#timeIsUp?.aborted ? 'time' : undefined,
      seconds: (performance.now() - this.#started) / 1000,
    };
  }

  /** As the old tool: a chunk of the room whose turn it is, then of the next. */
  async #byLowestGroup(rewriter: Rewriter): Promise<void> {
    const { rooms, except, maxRooms } = this.#settings;
    const unknown = await rewriter.transaction((client) => roomsWithoutGroups(client, rooms));
    this.#tellUnknown(unknown);
    const ended: string[] = [];
    let from = 0;
    while (!this.#isDone()) {
      const all = rooms.length === 0 && this.#rooms.size < maxRooms;
      const among = this.#rooms.size < maxRooms ? rooms : [...this.#rooms];
      const without = [...except, ...ended, ...this.#failed.map(({ room }) => room)];
      const next = await rewriter.transaction((client) =>
        lowestUncompressed(client, all ? undefined : among, without, from),
      );
      if (next === undefined) return;
      from = next.group;
      // Below it all is compressed only if no room was left out.
      const isLowest = all && without.length === 0;
      const save = isLowest ? [saveLowestUncompressed(next.group)] : [];
      await this.#try(next.room, async () => {
        if (!(await this.#compressor.compressChunk(next.room, save))) ended.push(next.room);
      });
    }
  }

  async #byEstimate(): Promise<void> {
    const { dsn, env, order, rooms, except, maxRooms, log } = this.#settings;
    const { rooms: all } = await readEstimates({ dsn, env, rooms, signal: this.#stop });
    this.#tellUnknown(rooms.filter((room) => !all.some((estimate) => estimate.room === room)));
    const wanted = all.filter(({ room }) => !except.includes(room));
    const due = wanted.filter((estimate) => this.#isDue(estimate)).sort(IN_ORDER[order]);
    log(
      'info',
      `${due.length} of ${wanted.length} rooms are to be compressed, for about ${sum(due, 'gain')} of ${sum(wanted, 'rows')} rows (an estimate).`,
      { rooms: wanted.length, due: due.length, rows: sum(wanted, 'rows'), gain: sum(due, 'gain') },
    );
    for (const estimate of due) {
      const { room } = estimate;
      if (this.#isDone() || this.#rooms.size === maxRooms) return;
      await this.#try(room, async () => {
        if (this.#settings.dryRun) await this.#compressor.plan(estimate);
        else while ((await this.#compressMore(room)) && !this.#isDone());
      });
    }
  }

  /** Tells which of the rooms that were named have no groups; that is an error where none has. */
  #tellUnknown(unknown: readonly string[]): void {
    const { rooms, log } = this.#settings;
    if (rooms.length === 1 && unknown.length === 1)
      throw new RoomNotFoundError(unknownRoom(rooms[0]));
    for (const room of unknown) log('warning', unknownRoom(room), { room });
    if (rooms.length > 0 && unknown.length === rooms.length) {
      throw new RoomNotFoundError(
        'None of the rooms that are named has state groups in this database.',
      );
    }
  }

  /** Whether there may be more of the room to compress. */
  #compressMore(room: string): Promise<boolean> {
    const { strategy } = this.#settings;
    return strategy.name === 'adaptive'
      ? this.#compressor.compress(room, strategy.settings)
      : this.#compressor.compressChunk(room, []);
  }

  #isDue({ gain, rows, newGroups, compressedBy }: RoomEstimate): boolean {
    const { strategy, rooms } = this.#settings;
    if (strategy.name === 'levels') return newGroups > 0;
    if (rooms.length > 0) return true;
    return gain > (compressedBy === 'adaptive' ? rows * WORTHWHILE : 0);
  }

  #isDone(): boolean {
    const { strategy, chunkSize, chunks } = this.#settings;
    if (this.#stop.aborted) return true;
    return strategy.name === 'levels'
      ? this.#compressor.counts.chunks >= chunks
      : this.#compressor.groupsPlanned >= chunks * chunkSize;
  }

  #isStop(error: unknown): boolean {
    const isAbort = error instanceof Error && error.name === 'AbortError';
    return this.#stop.aborted && (isAbort || error === this.#stop.reason);
  }

  /** Works on a room; if that fails, it is set aside. */
  async #try(room: string, work: () => Promise<unknown>): Promise<void> {
    const { log } = this.#settings;
    this.#rooms.add(room);
    for (let attempt = 1; ; attempt++) {
      try {
        await work();
        return;
      } catch (error) {
        if (
          error instanceof OutputError ||
          error instanceof BusyError ||
          error instanceof UsageError
        ) {
          throw error;
        }
        // Other rooms would fail as well, and Synapse needs what is left of the disk.
        if (isDiskFull(error)) throw error;
        // Waits for a server that is restarted; one that is gone ends the run.
        if (error instanceof DatabaseError && !this.#settings.signal.aborted) {
          await this.#rewriter?.transaction(async () => {});
        }
        const isLost = lossBehind(error) !== undefined;
        // A reader that is stopped closes its connection, which may look like a loss.
        if (this.#isStop(error) || (isLost && this.#stop.aborted)) {
          const why = this.#settings.signal.aborted ? 'is stopped' : 'has no time left';
          log('warning', `Room '${room}' is not finished, because the run ${why}.`, { room });
          return;
        }
        if (isLost && attempt === 1) continue;
        const reason = error instanceof Error ? error.message : String(error);
        this.#failed.push({ room, reason });
        log('warning', `Room '${room}' failed and is set aside: ${reason}`, { room, reason });
        return;
      }
    }
  }
}

function isDiskFull(error: unknown): boolean {
  return error instanceof DatabaseError && codeOf(error.cause) === '53100';
}

const IN_ORDER = {
  gain: (a: RoomEstimate, b: RoomEstimate) => b.gain - a.gain || (a.room < b.room ? -1 : 1),
  id: (a: RoomEstimate, b: RoomEstimate) => (a.firstNewGroup ?? 0) - (b.firstNewGroup ?? 0),
};

function sum(estimates: readonly RoomEstimate[], figure: 'rows' | 'gain'): number {
  return estimates.reduce((total, estimate) => total + estimate[figure], 0);
}
