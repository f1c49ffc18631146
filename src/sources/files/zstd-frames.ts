const FRAME = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;
const MAGIC_LENGTH = 4;
const LONGEST_FIELD = 4;
/** A block of one byte, which is repeated. */
const RLE = 1;

/** Whether zstd data begins so: with a frame, or, as pzstd has it, with one to be skipped. */
export function beginsZstd(head: Buffer): boolean {
  return head.length >= MAGIC_LENGTH && isMagic(head.readUInt32LE());
}

/**
 * Parts zstd data into its frames (RFC 8878, section 3.1), each of which is to be read to its end before
 * the next is asked for. Node's zlib, up to version 24 at least, drops what stands behind the first
 * frame, and before 24 takes a frame that is cut off for a whole one.
 *
 * @throws Error with the reason alone, if the data is cut off or followed by something else
 */
export async function* zstdFrames(
  chunks: AsyncIterable<Buffer>,
): AsyncGenerator<AsyncGenerator<Buffer>> {
  const iterator = chunks[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);
  const more = async (): Promise<boolean> => {
    while (rest.length === 0) {
      const next = await iterator.next();
      if (next.done === true) return false;
      rest = next.value;
    }
    return true;
  };
  const frame = async function* () {
    const walk = new FrameWalk();
    while (!walk.hasEnded) {
      if (!(await more())) throw new Error('it begins as zstd, but is cut off. Copy it again');
      const end = walk.pass(rest);
      yield rest.subarray(0, end);
      rest = rest.subarray(end);
    }
  };
  while (await more()) yield frame();
}

function isMagic(magic: number): boolean {
  return magic === FRAME || (magic & 0xfffffff0) === SKIPPABLE;
}

/** Goes over one frame, from header to header. */
class FrameWalk {
  hasEnded = false;
  /** The field that is read next. */
  #field: 'magic' | 'size' | 'descriptor' | 'block' | 'end' = 'magic';
  /** What is there of it, of `#length` bytes. */
  readonly #bytes = Buffer.alloc(LONGEST_FIELD);
  #has = 0;
  #length = MAGIC_LENGTH;
  /** Bytes before it that don't matter here. */
  #skip = 0;
  #hasChecksum = false;

  /** Returns where the frame ends in `chunk`, or the chunk's length if it goes on. */
  pass(chunk: Buffer): number {
    let at = 0;
    for (;;) {
      const skipped = Math.min(this.#skip, chunk.length - at);
      this.#skip -= skipped;
      at += skipped;
      if (this.#skip > 0) return at;
      if (this.#field === 'end') {
        this.hasEnded = true;
        return at;
      }
      const copied = chunk.copy(this.#bytes, this.#has, at, at + this.#length - this.#has);
      this.#has += copied;
      at += copied;
      if (this.#has < this.#length) return at;
      this.#has = 0;
      this.#take();
    }
  }

  #take(): void {
    switch (this.#field) {
      case 'magic': {
        const magic = this.#bytes.readUInt32LE();
        if (!isMagic(magic)) {
          throw new Error('it begins as zstd, and goes on as something else. Copy it again');
        }
        if (magic === FRAME) this.#expect('descriptor', 1, 0);
        else this.#expect('size', 4, 0);
        break;
      }
      case 'size':
        this.#expect('end', 0, this.#bytes.readUInt32LE());
        break;
      case 'descriptor': {
        const [descriptor] = this.#bytes;
        const isSingleSegment = (descriptor & 32) !== 0;
        this.#hasChecksum = (descriptor & 4) !== 0;
        const dictionary = [0, 1, 2, 4][descriptor & 3];
        const contentSize = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6];
        this.#expect('block', 3, (isSingleSegment ? 0 : 1) + dictionary + contentSize);
        break;
      }
      case 'block': {
        const header = this.#bytes.readUIntLE(0, 3);
        const isLast = (header & 1) !== 0;
        const length = ((header >> 1) & 3) === RLE ? 1 : header >> 3;
        if (isLast) this.#expect('end', 0, length + (this.#hasChecksum ? 4 : 0));
        else this.#expect('block', 3, length);
        break;
      }
      case 'end':
        break;
    }
  }

  #expect(field: 'size' | 'descriptor' | 'block' | 'end', length: number, skip: number): void {
    this.#field = field;
    this.#length = length;
    this.#skip = skip;
  }
}
