const TAB = 9;
const LINE_FEED = 10;

/**
 * Puts the fields of whole lines of COPY text in another order, in place: `order` says where each
 * column stands. A line that has more or fewer fields stays as it is.
 */
export function reorderFields(lines: Buffer, order: readonly number[]): void {
  const starts = new Int32Array(order.length + 1);
  let line = Buffer.alloc(0);
  for (let start = 0, end: number; start < lines.length; start = end + 1) {
    end = lines.indexOf(LINE_FEED, start);
    if (!splitFields(lines, start, end, starts)) continue;
    if (line.length < end - start) line = Buffer.allocUnsafeSlow(2 * (end - start));
    lines.copy(line, 0, start, end);
    let at = start;
    for (const column of order) {
      at += line.copy(lines, at, starts[column] - start, starts[column + 1] - 1 - start);
      if (at < end) lines[at++] = TAB;
    }
  }
}

/** Where each field begins, and behind the last one where a further would; false if it is not so many. */
function splitFields(lines: Buffer, start: number, end: number, starts: Int32Array): boolean {
  starts[0] = start;
  let fields = 1;
  for (let i = start; i < end; i++) {
    if (lines[i] !== TAB) continue;
    if (fields === starts.length - 1) return false;
    starts[fields++] = i + 1;
  }
  starts[fields] = end + 1;
  return fields === starts.length - 1;
}
