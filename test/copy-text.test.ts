import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { decodeField, encodeField, isNull, needsCare } from '../src/state/copy-text.js';
import * as naive from './support/naive-copy-text.js';
import { testDatabase } from './support/postgres.js';

/** Calls `code` with bytes amid others, as in a chunk, and sees that nothing around them is touched. */
function coded(code: typeof decodeField, input: string, room: number): string {
  const from = Buffer.from(`\\1${input}23`, 'latin1');
  const to = Buffer.alloc(1 + room + 1, '?');
  const end = code(from, 2, from.length - 2, to, 1);
  assert.ok(end <= 1 + room);
  assert.equal(to[0], 63);
  assert.ok(to.subarray(end).every((byte) => byte === 63));
  return to.toString('latin1', 1, end);
}

const decode = (field: string) => coded(decodeField, field, field.length);
const encode = (text: string) => coded(encodeField, text, 2 * text.length);

/** With NUL, which no text of Postgres's holds, but a field can spell. */
const bytes = fc.uint8Array({ maxLength: 60 }).map((all) => Buffer.from(all).toString('latin1'));

describe("COPY's escapes", () => {
  it('gives every byte back', () => {
    const all = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte)).join('');
    assert.equal(decode(encode(all)), all);
    fc.assert(fc.property(bytes, (text) => assert.equal(decode(encode(text)), text)));
  });

  it('spells as Postgres does', () => {
    fc.assert(
      fc.property(fc.oneof(bytes, naive.text(60)), (text) =>
        assert.equal(encode(text), naive.encoded(text)),
      ),
    );
  });

  it('reads every spelling of every byte', () => {
    for (let code = 1; code < 256; code++) {
      const byte = String.fromCharCode(code);
      for (const rest of ['', '7', 'f', 'z']) {
        for (let style = 0; style < 8; style++) {
          const field = naive.spelled(byte + rest, [style, 0]);
          assert.equal(decode(field), byte + rest, field);
        }
      }
    }
    assert.equal(decode('\\0\\00\\000\\x0\\x00'), '\0'.repeat(5));
    assert.equal(decode('\\8\\xg\\x\\'), '8xgx\\');
  });

  it('reads any field as a naive model does', () => {
    fc.assert(
      fc.property(fc.oneof(bytes, naive.text(60)), (field) =>
        assert.equal(decode(field), naive.decoded(field)),
      ),
      { numRuns: 1000 },
    );
  });

  it('knows NULL from the letter', () => {
    for (const field of ['\\N', '\\n', 'N', '\\', '', '\\N\\N', '\\\\N']) {
      const around = Buffer.from(`\\N${field}\\N`);
      assert.equal(isNull(around, 2, 2 + field.length), field === '\\N', field);
    }
  });

  it('takes care of all that is not its own canonical spelling, or not its own meaning', () => {
    fc.assert(
      fc.property(naive.text(8), (field) => {
        const plain = !needsCare(Buffer.from(field, 'latin1'), 0, field.length);
        if (plain) assert.deepEqual([decode(field), encode(field)], [field, field]);
        // oxlint-disable-next-line no-control-regex
        assert.equal(plain, !/[\0-\x0D\\]/.test(field));
      }),
    );
  });

  it('reads what Postgres reads', async (t) => {
    const db = await testDatabase(t, 'none');
    await db.query('CREATE TABLE fields (n int, field text)');
    // Postgres wants UTF-8 before and after decoding: one way of spelling for all bytes of a character.
    const ascii = naive.text(20).map((text) => text.replace(/[\x80-\xff]/g, '\x7f'));
    const unicode = fc
      .string({ unit: 'binary', maxLength: 20 })
      .map((text) => Buffer.from(text.replaceAll('\0', '')).toString('latin1'));
    const input = fc.oneof(fc.tuple(ascii, naive.styles), fc.tuple(unicode, fc.tuple(fc.nat(7))));
    const fields = fc.sample(input, 3000).map(([text, style]) => naive.spelled(text, style));
    const lines = fields.map((field, n) => `${n}\t${field}\n`).join('');
    await db.copyIn('fields', Readable.from([Buffer.from(lines, 'latin1')]));
    const { rows } = await db.query<{ read: Buffer; written: Buffer }>(
      "SELECT convert_to(field, 'UTF8') AS read FROM fields ORDER BY n",
    );
    assert.equal(rows.length, fields.length);
    for (const [n, field] of fields.entries()) {
      assert.equal(decode(field), rows[n].read.toString('latin1'), field);
    }

    const written = await db
      .copyOut('SELECT field FROM fields ORDER BY n')
      .map((chunk: Buffer) => chunk.toString('latin1'))
      .toArray();
    const expected = rows.map(({ read }) => `${encode(read.toString('latin1'))}\n`).join('');
    assert.equal(written.join(''), expected);
  });
});
