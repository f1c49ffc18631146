import { CompressStateError } from '../errors.js';

/** What shells report for a process that a signal ended: 128 and the signal's number. */
const EXIT_CODES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

export type Signal = keyof typeof EXIT_CODES;

/** What a signal leaves that comes after the last transaction. */
export const ALL_IS_APPLIED = 'All changes were applied, but what was to follow was not done.';

/** The run was stopped from outside. */
export class InterruptedError extends CompressStateError {
  readonly exitCode: number;

  constructor(by: Signal, message: string, options: ErrorOptions) {
    super(`Stopped by ${by}. ${message}`, options);
    this.exitCode = EXIT_CODES[by];
  }
}

/** Turns the first signal into an abort, after which all is closed in good order; the second exits. */
export class Interruption {
  readonly #controller = new AbortController();
  #by: Signal | undefined;

  constructor() {
    for (const name of Object.keys(EXIT_CODES) as Signal[]) {
      process.on(name, () => {
        if (this.#by !== undefined) {
          process.exit(EXIT_CODES[name]);
        }
        this.#by = name;
        this.#controller.abort();
      });
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The signal that stopped the run, if one did. */
  get by(): Signal | undefined {
    return this.#by;
  }
}
