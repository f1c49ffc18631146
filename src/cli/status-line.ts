import type { WriteStream } from 'node:tty';
import { printable } from './printable.js';
import { progressText, type Progress } from '../report/progress-text.js';

/** A terminal's line changes this often at most, a log gets a line this often, in milliseconds. */
const TERMINAL_INTERVAL = 100;
const LOG_INTERVAL = 30_000;

/** Carriage return, and erase to the end of the line. */
const CLEAR = '\r\x1b[K';

/**
 * Status on standard error: lines that stay, and below them one line of progress that is rewritten
 * in place. Without a terminal, progress is a line now and then.
 */
export class StatusLine {
  readonly #stream: WriteStream;
  readonly #inPlace: boolean;
  #started = 0;
  #drawn = 0;
  #last: Pick<Progress, 'groups' | 'totalGroups'> = { groups: 0, totalGroups: 0 };
  #shown = false;

  constructor(stream: WriteStream, term: string | undefined) {
    this.#stream = stream;
    this.#inPlace = stream.isTTY && term !== 'dumb';
  }

  say(line: string): void {
    this.clear();
    this.#stream.write(`${printable(line)}\n`);
  }

  /** Shows how far a room is; with another one, or the same from the beginning, the clock starts anew. */
  progress(progress: Progress): void {
    const { groups, totalGroups } = this.#last;
    if (progress.totalGroups !== totalGroups || progress.groups < groups) this.begin();
    this.#last = progress;
    this.show((seconds) => progressText(progress, seconds));
  }

  /** Starts the clock anew with what is shown next. */
  begin(): void {
    this.#started = 0;
  }

  /**
   * Shows how far it is after so many seconds, if the last time was long enough ago. The first call
   * starts the clock.
   */
  show(textOf: (seconds: number) => string): void {
    const now = performance.now();
    if (this.#started === 0) {
      this.#started = now;
      this.#drawn = now;
    }
    if (now - this.#drawn < (this.#inPlace ? TERMINAL_INTERVAL : LOG_INTERVAL)) {
      return;
    }
    this.#drawn = now;
    const text = textOf((now - this.#started) / 1000);
    if (this.#inPlace) {
      // A full last column would wrap on some terminals. A width of 0 is an unknown one.
      this.#stream.write(`\r${text.slice(0, (this.#stream.columns || 80) - 1)}\x1b[K`);
      this.#shown = true;
    } else {
      this.#stream.write(`${text}\n`);
    }
  }

  clear(): void {
    if (this.#shown) {
      this.#stream.write(CLEAR);
      this.#shown = false;
    }
  }
}
