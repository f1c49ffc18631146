import { ByteHash } from './byte-hash.js';
import { decodeField, needsCare } from './copy-text.js';
import { grown } from './grown.js';

/** A `ByteHash` that also takes fields of COPY text. */
export class FieldHash extends ByteHash {
  #decoded = new Uint8Array(1024);

  /** Hashes a field as Postgres holds it, however it is spelt in bytes `start` to `end`, which `view` shows. */
  updateField(
    bytes: Uint8Array,
    view: DataView,
    start: number,
    end: number,
    seedHigh: number,
    seedLow: number,
  ): void {
    if (!needsCare(bytes, start, end)) {
      this.update(view, start, end, seedHigh, seedLow);
      return;
    }
    this.#decoded = grown(this.#decoded, end - start);
    const length = decodeField(bytes, start, end, this.#decoded, 0);
    this.update(new DataView(this.#decoded.buffer), 0, length, seedHigh, seedLow);
  }
}
