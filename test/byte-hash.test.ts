import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { ByteHash } from '../src/state/byte-hash.js';
import { EntryPool } from '../src/state/entry-pool.js';
import { KeyTable } from '../src/state/key-table.js';
import * as naive from './support/naive-copy-text.js';
import { testPostgres, type TestDatabase } from './support/postgres.js';

/** Any characters but NUL, and often those that COPY text escapes. */
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 30 }).map((all) => all.replaceAll('\0', '')),
  naive.text(30).map((all) => all.replace(/[\x80-\xff]/g, '\x7f')),
);
const seed = fc.oneof(fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), fc.constantFrom(0n, 1n, -1n));

/** For each length up to 100 bytes some strings of that length, and others, with seeds and offsets. */
function samples(): [string, bigint, number][] {
  const every = Array.from({ length: 101 }, (_, length) => {
    const ascii = fc.string({ unit: 'grapheme-ascii', minLength: length, maxLength: length });
    return fc.sample(fc.tuple(ascii, seed, fc.nat(5)), 10);
  });
  return [...every.flat(), ...fc.sample(fc.tuple(text, seed, fc.nat(5)), 1000)];
}

describe('the hash of bytes', () => {
  let db: TestDatabase;
  before(async () => {
    db = await (await testPostgres()).createDatabase({ schema: 'none' });
  });
  after(() => db.drop());

  it("is Postgres's hashtextextended", async () => {
    const inputs = samples();
    const hash = new ByteHash();
    const actual = inputs.map(([string, s, offset]) => {
      const bytes = Buffer.from(`${'?'.repeat(offset)}${string}?`);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      hash.update(view, offset, bytes.length - 1, Number(s >> 32n), Number(BigInt.asIntN(32, s)));
      return ((BigInt(hash.high) << 32n) | BigInt(hash.low >>> 0)).toString();
    });
    const { rows } = await db.query<{ hash: string }>(
      'SELECT hashtextextended(t, s)::text AS hash FROM unnest($1::text[], $2::bigint[]) AS a (t, s)',
      [inputs.map(([string]) => string), inputs.map(([, s]) => s.toString())],
    );
    assert.deepEqual(
      actual,
      rows.map((row) => row.hash),
    );
  });

  it("sums a group's rows as the guard in SQL does", async () => {
    const row = fc.tuple(text, text, text);
    const pool = new EntryPool(new KeyTable(1, 2));
    for (const group of fc.sample(fc.array(row, { maxLength: 40 }), 50)) {
      const entries = group.map((fields) => entryOf(pool, fields));
      const half = entries.length >> 1;
      const actual = pool.guardSum({
        entries: Int32Array.from(entries.slice(0, half)),
        length: half,
        repeated: Int32Array.from(entries.slice(half)),
        repeatedLength: entries.length - half,
      });
      const { rows } = await db.query<{ sum: string }>(
        `SELECT coalesce(sum(hashtextextended(
            event_id, hashtextextended(state_key, hashtextextended(type, 0)))), 0)::text AS sum
          FROM unnest($1::text[], $2::text[], $3::text[]) AS row (type, state_key, event_id)`,
        [0, 1, 2].map((column) => group.map((fields) => fields[column])),
      );
      assert.equal(actual.toString(), rows[0].sum);
    }
  });
});

function entryOf(pool: EntryPool, fields: readonly string[]): number {
  const [type, stateKey, event] = fields.map((field) =>
    Buffer.from(naive.encoded(Buffer.from(field).toString('latin1')), 'latin1'),
  );
  const bytes = Buffer.concat([type, Buffer.from('\t'), stateKey, Buffer.from('\t'), event]);
  const line = Buffer.concat([bytes, Buffer.from('\n')]);
  const view = new DataView(line.buffer, line.byteOffset, line.length);
  const keyEnd = type.length + stateKey.length + 2;
  const key = pool.keys.intern(line, view, 0, keyEnd, type.length);
  return pool.intern(key, line, view, keyEnd, line.length);
}
