import { ChangeSpool } from '../apply/change-spool.js';
import type { Rewriter } from '../apply/rewriter.js';
import type { OpenOutput } from '../sinks/output.js';
import { applyAndReport, openRewriter } from './apply-command.js';
import type { ApplyOptions } from './apply-options.js';
import type { Interruption } from './interruption.js';
import type { StatusLine } from './status-line.js';

/** Changes that wait in a temporary file, in the format copy, until they are applied. */
export class Commit {
  /** Takes the changes. */
  readonly output: OpenOutput;
  /** Whether all was applied. */
  isApplied = false;
  readonly #spool: ChangeSpool;
  readonly #rewriter: Rewriter;

  private constructor(spool: ChangeSpool, rewriter: Rewriter) {
    this.#spool = spool;
    this.#rewriter = rewriter;
    this.output = {
      name: 'the database',
      isFile: false,
      sentBytes: 0,
      get bytes() {
        return spool.bytes;
      },
      stream: spool.stream,
      keep: () => spool.keep(),
      discard: () => spool.discard(),
    };
  }

  /**
   * Makes sure that nobody else writes to the database meanwhile, before anything is read.
   *
   * @throws BusyError, DatabaseError, OutputError, UsageError
   */
  static async open(
    dsn: string,
    tmpdir: string,
    status: StatusLine,
    signal: AbortSignal,
  ): Promise<Commit> {
    const rewriter = await openRewriter(dsn, status, signal);
    try {
      return new Commit(await ChangeSpool.create(tmpdir), rewriter);
    } catch (error) {
      await rewriter.close();
      throw error;
    }
  }

  /** Applies what the output took, so many groups, and gives figures; throws as `applyAndReport`. */
  async apply(
    totalGroups: number,
    options: ApplyOptions,
    status: StatusLine,
    interruption: Interruption,
  ): Promise<object> {
    status.say('Applying the changes...');
    const figures = await applyAndReport(
      {
        ...options,
        changes: this.#spool.read(),
        rewriter: this.#rewriter,
        dryRun: false,
        totalGroups,
      },
      status,
      interruption,
    );
    this.isApplied = true;
    return figures;
  }

  async close(): Promise<void> {
    await Promise.all([this.#spool.close(), this.#rewriter.close()]);
  }
}
