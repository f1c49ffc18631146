import { ChangeSpool } from '../apply/change-spool.js';
import type { Rewriter } from '../apply/rewriter.js';
import { readChanges } from '../changes/read-changes.js';
import type { RoomChange } from '../changes/room-change.js';
import type { OpenOutput, SpoolSettings } from '../sinks/output.js';
import { FileInput } from '../sources/files/input.js';
import { APPLY_AGAIN, applyAndReport, openRewriter } from './apply-command.js';
import type { ApplyOptions } from './apply-options.js';
import type { Interruption } from './interruption.js';
import type { StatusLine } from './status-line.js';

const PLAN_AGAIN =
  'The same command plans anew what is left; --rebase-deep with it also shortens all chains that became too long by this.';

/** Changes that wait until all are made and verified, and then are applied. */
export class Commit {
  /** Takes the changes, in the format copy, into a temporary file; undefined where they wait in a named one. */
  readonly output: OpenOutput | undefined;
  /** Whether all was applied. */
  isApplied = false;
  /** Where all changes are, once they are being applied; undefined if not in a named file. */
  keptIn: string | undefined;
  readonly #file: string | undefined;
  readonly #changes: () => AsyncIterable<RoomChange>;
  readonly #rewriter: Rewriter;

  private constructor(
    rewriter: Rewriter,
    file: string | undefined,
    output: OpenOutput | undefined,
    changes: () => AsyncIterable<RoomChange>,
  ) {
    this.#rewriter = rewriter;
    this.#file = file;
    this.output = output;
    this.#changes = changes;
  }

  /**
   * Makes sure that nobody else writes to the database meanwhile, before anything is read.
   *
   * @param file where the changes are kept in a form that `apply` takes
   * @throws BusyError, DatabaseError, OutputError, UsageError
   */
  static async open(
    dsn: string,
    file: string | undefined,
    { tmpdir, signal }: Required<SpoolSettings>,
    status: StatusLine,
  ): Promise<Commit> {
    const rewriter = await openRewriter(dsn, status, signal);
    if (file !== undefined) {
      return new Commit(rewriter, file, undefined, () => readChanges(new FileInput(file, signal)));
    }
    try {
      const spool = await ChangeSpool.create(tmpdir);
      return new Commit(rewriter, undefined, outputOf(spool), () => spool.read());
    } catch (error) {
      await rewriter.close();
      throw error;
    }
  }

  /** Applies what was kept, so many groups, and gives figures; throws as `applyAndReport`. */
  async apply(
    totalGroups: number,
    options: ApplyOptions,
    status: StatusLine,
    interruption: Interruption,
  ): Promise<object> {
    this.keptIn = this.#file;
    status.say('Applying the changes...');
    const figures = await applyAndReport(
      {
        ...options,
        changes: this.#changes(),
        rewriter: this.#rewriter,
        dryRun: false,
        totalGroups,
        toGoOn: this.#file === undefined ? PLAN_AGAIN : APPLY_AGAIN,
      },
      status,
      interruption,
    );
    this.isApplied = true;
    return figures;
  }

  async close(): Promise<void> {
    await Promise.all([this.output?.discard(), this.#rewriter.close()]);
  }
}

function outputOf(spool: ChangeSpool): OpenOutput {
  return {
    name: 'the database',
    isFile: false,
    sentBytes: 0,
    isCutOff: false,
    get bytes() {
      return spool.bytes;
    },
    stream: spool.stream,
    keep: () => spool.keep(),
    discard: () => spool.discard(),
  };
}
