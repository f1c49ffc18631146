/**
 * COPY's escapes by regular expressions. A byte string is here a JavaScript string whose characters
 * are below 256.
 */
import fc from 'fast-check';

const LETTERS: Readonly<Record<string, string>> = {
  '\b': 'b',
  '\f': 'f',
  '\n': 'n',
  '\r': 'r',
  '\t': 't',
  '\v': 'v',
  '\\': '\\',
};
const BYTES = Object.fromEntries(Object.entries(LETTERS).map(([byte, letter]) => [letter, byte]));

/** Texts of the bytes that Postgres can hold, among them many that need an escape or look like one. */
export const text = (maxLength: number): fc.Arbitrary<string> =>
  fc.string({
    maxLength,
    unit: fc.oneof(
      fc.constantFrom(...'\b\t\n\v\f\r\\.N"\'$bfnrtvx0178afg'.split('')),
      fc.integer({ min: 1, max: 255 }).map((byte) => String.fromCharCode(byte)),
    ),
  });

/** Which spelling each byte of a text gets, over and over again; all 0 is the canonical spelling. */
export const styles: fc.Arbitrary<readonly number[]> = fc.array(fc.nat(7), { minLength: 1 });

export function encoded(decodedText: string): string {
  return decodedText.replace(/[\b\f\n\r\t\v\\]/g, (byte) => `\\${LETTERS[byte]}`);
}

export function decoded(field: string): string {
  return field.replace(/\\(x[\da-f]{1,2}|[0-7]{1,3}|[^])/gi, (_, escape: string) => {
    if (/^x./i.test(escape)) return String.fromCharCode(parseInt(escape.slice(1), 16));
    if (/^[0-7]/.test(escape)) return String.fromCharCode(parseInt(escape, 8) & 255);
    return BYTES[escape] ?? escape;
  });
}

/** One of the many fields that mean `decodedText`; never NULL's, and never with a line feed in it. */
export function spelled(decodedText: string, style: readonly number[]): string {
  let field = '';
  for (let i = decodedText.length - 1; i >= 0; i--) {
    field = spelledByte(decodedText[i], style[i % style.length], field) + field;
  }
  return field === '\\N' ? 'N' : field;
}

function spelledByte(byte: string, style: number, rest: string): string {
  const code = byte.charCodeAt(0);
  const octal = code.toString(8);
  const hex = code.toString(16);
  const canonical = encoded(byte);
  switch (style) {
    case 1:
      return `\\${octal.padStart(3, '0')}`;
    case 2:
      return /^[0-7]/.test(rest) ? canonical : `\\${octal}`;
    case 3:
      // Postgres drops the bits above the eighth.
      return `\\${(code | 256).toString(8)}`;
    case 4:
      return `\\x${hex.padStart(2, '0')}`;
    case 5:
      return /^[\da-f]/i.test(rest) ? canonical : `\\x${hex.toUpperCase()}`;
    case 6:
      // A backslash must not part the bytes of one UTF-8 character.
      return code > 127 || /[\n.bfnrtv0-7]/.test(byte) || (byte === 'x' && /^[\da-f]/i.test(rest))
        ? canonical
        : `\\${byte}`;
    case 7:
      return /[\n\r\t\\]/.test(byte) ? canonical : byte;
    default:
      return canonical;
  }
}

/** A stream's chunks: pieces of the lengths given, over and over again. */
export function cut(bytes: Buffer, lengths: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += chunks.at(-1)!.length) {
    chunks.push(bytes.subarray(at, at + lengths[chunks.length % lengths.length]));
  }
  return chunks;
}

/** The same chunks as a file's are: each is valid until the next is asked for. */
export async function* overwritten(chunks: readonly Buffer[]): AsyncGenerator<Buffer> {
  for (const chunk of chunks) {
    const bytes = Buffer.from(chunk);
    yield bytes;
    bytes.fill('x');
  }
}

/** Lengths for `cut`: from a byte to more than there is. */
export const lengths: fc.Arbitrary<readonly number[]> = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 10, max: 3000 })),
  { minLength: 1, maxLength: 8 },
);
