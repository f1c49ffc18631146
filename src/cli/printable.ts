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

/** From the name of a URL's user on to the last @ of the line, as a password may have some; and libpq's keywords. */
const PASSWORDS =
  /(postgres\w*:?\/*[^\s:@/]*:).+@|(password\s*=\s*)(?:'(?:[^'\\]|\\.)*'?|[^\s']+)/gi;

/** A text without the passwords of connection strings that stand where none belongs. */
export function withoutPassword(text: string): string {
  return text.replaceAll(PASSWORDS, (_, url?: string, keyword?: string) =>
    url === undefined ? `${keyword}…` : `${url}…@`,
  );
}
