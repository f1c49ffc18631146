/** What a terminal obeys or hides, other than the end of a line: control characters and marks of direction. */
const CONTROLS = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/g;

const escaped = (character: string): string =>
  `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** A text without what a terminal obeys: rooms and keys have the names that strangers gave them. JSON stays the same. */
export function printable(text: string): string {
  return text.replaceAll(CONTROLS, escaped);
}

/** The same for what is to be one line, though a name in it has several. */
export function onOneLine(text: string): string {
  return printable(text).replaceAll('\n', escaped);
}

/** A text without the password of a URL that stands where none belongs. */
export function withoutPassword(text: string): string {
  return text.replaceAll(/(postgres\w*:?\/*[^\s:@/]*:)[^\s@]+@/gi, '$1…@');
}
