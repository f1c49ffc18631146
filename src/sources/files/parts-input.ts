import { InputError } from '../../errors.js';
import { countLines } from './copy-lines.js';
import type { Input } from './input.js';

const LINE_FEED = 10;
/** What to do with parts that can't be read as such. */
export const JOIN_IN_A_PIPE = 'join the parts in a pipe: cat PARTS | synapse_compress_state -i - …';

export interface Part {
  readonly input: Input;
  /** Whether it begins within the line that the part before ends in. */
  readonly goesOn: boolean;
}

/** One table in several inputs, which are read one after the other. Each names its own lines. */
export class PartsInput implements Input {
  readonly name: string;
  readonly rereadable: boolean;
  readonly isSlow: boolean;
  readonly #parts: readonly Part[];
  /** Of each part that was begun to be read: the line ends before it, and which line is the first to begin in it. */
  readonly #starts: { readonly lineEnds: number; readonly firstLine: number }[] = [];

  constructor(parts: readonly Part[]) {
    const [{ input: first }] = parts;
    const others = parts.length - 1;
    this.name = `${first.name} and ${others} other ${others === 1 ? 'part' : 'parts'}`;
    this.rereadable = parts.every(({ input }) => input.rereadable);
    this.isSlow = parts.some(({ input }) => input.isSlow === true);
    this.#parts = parts;
  }

  async *read(): AsyncGenerator<Buffer> {
    let lineEnds = 0;
    let last = LINE_FEED;
    for (const [i, { input, goesOn }] of this.#parts.entries()) {
      const isWithinLine = last !== LINE_FEED;
      if (isWithinLine && !goesOn) {
        throw new InputError(
          `${this.place(lineEnds)} has no line feed at its end: the export is cut off, or is a part that was cut within a line. If it goes on in ${input.name}, ${JOIN_IN_A_PIPE}`,
        );
      }
      this.#starts[i] = { lineEnds, firstLine: isWithinLine ? lineEnds + 1 : lineEnds };
      for await (const chunk of input.read()) {
        lineEnds += countLines(chunk);
        last = chunk.at(-1) ?? last;
        yield chunk;
      }
    }
  }

  /** A line that goes on in the next part is named where it begins. */
  place(index: number): string {
    const at = Math.max(
      0,
      this.#starts.findLastIndex(({ firstLine }) => firstLine <= index),
    );
    const { lineEnds } = this.#starts[at] ?? { lineEnds: 0 };
    return this.#parts[at].input.place(index - lineEnds);
  }
}
