import { TemporaryFile } from '../../temporary-file.js';

/** What is open, and ends together. */
export class Work {
  /** Aborted when all is ended, and with the signal that was given. */
  readonly signal: AbortSignal;
  readonly #tmpdir: string;
  readonly #stop = new AbortController();
  readonly #files: TemporaryFile[] = [];

  constructor(tmpdir: string, signal: AbortSignal | undefined) {
    this.#tmpdir = tmpdir;
    this.signal = AbortSignal.any([this.#stop.signal, ...(signal === undefined ? [] : [signal])]);
  }

  async temporaryFile(): Promise<TemporaryFile> {
    this.signal.throwIfAborted();
    const file = await TemporaryFile.create(this.#tmpdir);
    this.#files.push(file);
    return file;
  }

  stop(): void {
    this.#stop.abort();
  }

  async end(): Promise<void> {
    this.stop();
    await Promise.all(this.#files.map((file) => file.close()));
  }
}
