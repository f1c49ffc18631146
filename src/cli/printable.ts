/** What a terminal obeys or hides, other than the end of a line: control characters and marks of direction. */
const CONTROLS = /(?![\t\n])[\p{Cc}\p{Bidi_Control}]/gu;

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
