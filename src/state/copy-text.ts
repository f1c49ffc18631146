/**
 * The escapes of Postgres's COPY text format (https://www.postgresql.org/docs/current/sql-copy.html).
 * Postgres writes one spelling for each string, the canonical one; other programs may write others,
 * so fields are brought to the canonical spelling before their bytes are compared.
 */

/** In bytes, however it is written. What is longer is no row: an event of Synapse's ends at 64 KB. */
export const LONGEST_ROW = 4 * 2 ** 20;

const BACKSLASH = 92;

/** The byte that follows the backslash in the canonical escape of `byte`, or 0 if it needs none. */
export function escapeLetter(byte: number): number {
  switch (byte) {
    case 8:
      return 98; // \b
    case 9:
      return 116; // \t
    case 10:
      return 110; // \n
    case 11:
      return 118; // \v
    case 12:
      return 102; // \f
    case 13:
      return 114; // \r
    case BACKSLASH:
      return BACKSLASH;
    default:
      return 0;
  }
}

const octal = (byte: number): boolean => byte >= 48 && byte <= 55;

function hexValue(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

/**
 * Decodes the field in bytes `start` to `end` of `from` into `to` at `at`; `to` needs no more room than
 * the field has. Returns the offset after the last byte written.
 */
export function decodeField(
  from: Uint8Array,
  start: number,
  end: number,
  to: Uint8Array,
  at: number,
): number {
  let i = start;
  while (i < end) {
    const byte = from[i++];
    if (byte !== BACKSLASH || i === end) {
      to[at++] = byte;
      continue;
    }
    const letter = from[i++];
    switch (letter) {
      case 98:
        to[at++] = 8;
        break;
      case 102:
        to[at++] = 12;
        break;
      case 110:
        to[at++] = 10;
        break;
      case 114:
        to[at++] = 13;
        break;
      case 116:
        to[at++] = 9;
        break;
      case 118:
        to[at++] = 11;
        break;
      case 120: {
        // \x and one or two hexadecimal digits; without a digit it is a plain x
        let value = i < end ? hexValue(from[i]) : -1;
        if (value < 0) {
          to[at++] = letter;
          break;
        }
        i++;
        const low = i < end ? hexValue(from[i]) : -1;
        if (low >= 0) {
          value = value * 16 + low;
          i++;
        }
        to[at++] = value;
        break;
      }
      default:
        if (octal(letter)) {
          let value = letter - 48;
          for (let digits = 1; digits < 3 && i < end && octal(from[i]); digits++) {
            value = value * 8 + from[i++] - 48;
          }
          to[at++] = value & 255;
        } else {
          to[at++] = letter;
        }
    }
  }
  return at;
}

/**
 * Writes the canonical spelling of bytes `start` to `end` of `from` into `to` at `at`; `to` needs twice
 * the room. Returns the offset after the last byte written.
 */
export function encodeField(
  from: Uint8Array,
  start: number,
  end: number,
  to: Uint8Array,
  at: number,
): number {
  for (let i = start; i < end; i++) {
    const byte = from[i];
    const letter = escapeLetter(byte);
    if (letter !== 0) {
      to[at++] = BACKSLASH;
      to[at++] = letter;
    } else {
      to[at++] = byte;
    }
  }
  return at;
}

/** The canonical spelling of a text, or of the bytes of one. */
export function fieldOf(text: string | Buffer): Buffer {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  const field = Buffer.alloc(2 * bytes.length);
  return field.subarray(0, encodeField(bytes, 0, bytes.length, field, 0));
}

/** The bytes of the text that a field stands for. */
export function decodedField(field: Uint8Array): Buffer {
  const bytes = Buffer.alloc(field.length);
  return bytes.subarray(0, decodeField(field, 0, field.length, bytes, 0));
}

/** Whether the field in bytes `start` to `end` is COPY's NULL. */
export function isNull(from: Uint8Array, start: number, end: number): boolean {
  return end - start === 2 && from[start] === BACKSLASH && from[start + 1] === 78;
}

/** Whether the field in bytes `start` to `end` stands for a text: it is no NULL, and ends in no half of an escape. */
export function isText(from: Uint8Array, start: number, end: number): boolean {
  let backslashes = 0;
  while (end - backslashes > start && from[end - backslashes - 1] === BACKSLASH) backslashes++;
  return backslashes % 2 === 0 && !isNull(from, start, end);
}

/** Whether bytes `start` to `end` hold a byte that the canonical spelling would write differently. */
export function needsCare(from: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    const byte = from[i];
    if (byte < 14 || byte === BACKSLASH) return true;
  }
  return false;
}
