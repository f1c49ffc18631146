/** Writes text as bytes, into a buffer that grows until they are taken. */
export class ByteWriter {
  protected bytes!: Buffer;
  protected view!: DataView;
  /** Where in `bytes` the next one goes. */
  protected end = 0;
  readonly #size: number;

  /** @param size of each buffer to begin with, in bytes */
  constructor(size: number) {
    this.#size = size;
    this.#begin(Buffer.allocUnsafe(size));
  }

  /** Bytes that were written since the last were taken. */
  get length(): number {
    return this.end;
  }

  write(text: string): void {
    this.reserve(text.length * 3);
    this.end += this.bytes.write(text, this.end);
  }

  /** What was written since the last call. */
  take(): Buffer {
    const taken = this.bytes.subarray(0, this.end);
    this.#begin(Buffer.allocUnsafe(this.#size));
    this.end = 0;
    return taken;
  }

  /** Makes room for so many bytes more. */
  protected reserve(length: number): void {
    const needed = this.end + length;
    if (needed <= this.bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, needed));
    this.bytes.copy(larger, 0, 0, this.end);
    this.#begin(larger);
  }

  #begin(bytes: Buffer): void {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
}
