import { setTimeout } from 'node:timers/promises';
import type { Outcome, Rewriter } from './rewriter.js';

/** How fast changes are applied: rows a second, deleted and inserted, or a share of the time from 0 to 1. */
export type Pace = { readonly rowsPerSecond: number } | { readonly share: number };

export interface ThrottleSettings {
  readonly pace?: Pace | undefined;
  /** Ends a pause. */
  readonly signal?: AbortSignal | undefined;
  /** Told in a sentence what is waited for. */
  readonly onTrouble?: (sentence: string) => void;
}

/** How often the server is asked how it does, in milliseconds. */
const LOOK_EVERY = 5000;
/** A standby may be behind by so many seconds; waits for one end after so many. */
const MOST_LAG = 10;
const LONGEST_WAIT_FOR_STANDBY = 300;
/** A transaction of this age, in seconds, keeps VACUUM from clearing up after us; it is waited for once, so long. */
const OLD_TRANSACTION = 3600;
const LONGEST_WAIT_FOR_TRANSACTION = 60;

/** Between two looks while something is waited for, in milliseconds. */
const WAIT_STEP = 1000;

/** Who may not see other sessions' figures gets null for them. */
const LOAD = `
  SELECT (SELECT extract(epoch FROM max(replay_lag)) FROM pg_stat_replication)::float8 AS lag, pid, age
  FROM (SELECT) AS now LEFT JOIN LATERAL (
    SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND backend_xmin IS NOT NULL
    ORDER BY xact_start LIMIT 1
  ) AS oldest ON true`;

interface Load {
  readonly lag: number | null;
  readonly pid: number | null;
  readonly age: number | null;
}

/** The seconds to pause after a batch that took so many; none if it is less than none. */
export function restAfter(
  pace: Pace,
  { rowsDeleted, rowsInserted, secondsGiven }: Outcome,
  seconds: number,
): number {
  const whole =
    'share' in pace
      ? (seconds - secondsGiven) / pace.share
      : (rowsDeleted + rowsInserted) / pace.rowsPerSecond;
  return whole - seconds;
}

/** Pauses between batches: for the pace that was asked for, and while the server has enough to do. */
export class Throttle {
  readonly #rewriter: Pick<Rewriter, 'query'>;
  readonly #settings: ThrottleSettings;
  #restUntil = 0;
  #lookAt = 0;
  #waitsForTransactions = true;
  #waitsForStandbys = true;

  constructor(rewriter: Pick<Rewriter, 'query'>, settings: ThrottleSettings) {
    this.#rewriter = rewriter;
    this.#settings = settings;
  }

  /** The most rows of a batch: with a pace, those of a second. */
  get mostRows(): number {
    const { pace } = this.#settings;
    return pace !== undefined && 'rowsPerSecond' in pace ? pace.rowsPerSecond : Infinity;
  }

  /** What has just been done, in so many seconds: the next pause is as long as that calls for. */
  took(outcome: Outcome, seconds: number): void {
    const { pace } = this.#settings;
    if (pace === undefined) return;
    this.#restUntil = performance.now() + restAfter(pace, outcome, seconds) * 1000;
  }

  /** Waits until there may be another batch. Returns at once when the signal is aborted. */
  async pause(): Promise<void> {
    await this.#sleep(this.#restUntil - performance.now());
    if (performance.now() < this.#lookAt) return;
    await this.#orAborted(this.#waitForServer());
    this.#lookAt = performance.now() + LOOK_EVERY;
  }

  async #waitForServer(): Promise<void> {
    if (this.#waitsForStandbys) {
      this.#waitsForStandbys = await this.#waitWhile(LONGEST_WAIT_FOR_STANDBY, ({ lag }) =>
        (lag ?? 0) > MOST_LAG ? `A standby is ${Math.round(lag!)} s behind` : undefined,
      );
    }
    if (this.#waitsForTransactions) {
      this.#waitsForTransactions = await this.#waitWhile(
        LONGEST_WAIT_FOR_TRANSACTION,
        ({ age, pid }) =>
          (age ?? 0) > OLD_TRANSACTION
            ? `A transaction, of process ${pid} of the server, is ${Math.round(age! / 60)} minutes old, and keeps VACUUM from making the rows' space usable`
            : undefined,
      );
    }
  }

  /** Waits while there is a reason, but not longer than so many seconds; false if it had to give up. */
  async #waitWhile(
    longest: number,
    reasonOf: (load: Load) => string | undefined,
  ): Promise<boolean> {
    const { onTrouble, signal } = this.#settings;
    const end = performance.now() + longest * 1000;
    for (let said = false; ; said = true) {
      const [load] = await this.#rewriter.query<Load & Record<string, unknown>>(LOAD);
      const reason = reasonOf(load);
      if (reason === undefined) return true;
      if (!said) onTrouble?.(`${reason}: waiting for it, ${longest} s at most.`);
      if (signal?.aborted) return true;
      if (performance.now() > end) {
        onTrouble?.(`${reason}. It is not waited for any longer.`);
        return false;
      }
      await this.#sleep(WAIT_STEP);
    }
  }

  async #sleep(milliseconds: number): Promise<void> {
    const { signal } = this.#settings;
    if (milliseconds <= 0 || signal?.aborted) return;
    await this.#orAborted(setTimeout(milliseconds, undefined, signal && { signal }));
  }

  /** The end of the wait, also where the signal ends it with an error. */
  async #orAborted(wait: Promise<void>): Promise<void> {
    await wait.catch((error: unknown) => {
      if (!this.#settings.signal?.aborted) throw error;
    });
  }
}
