import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { EntryPool } from '../src/state/entry-pool.js';
import { KeyTable } from '../src/state/key-table.js';

const TYPE = 'm.room.member';

/** Some of 8192 entries, of 64 keys and events of many lengths, that are taken or given back at once. */
const steps = fc.array(
  fc.record({
    does: fc.constantFrom('take', 'take', 'give back'),
    first: fc.nat(8191),
    count: fc.nat(4000),
    stride: fc.nat(50).map((half) => 2 * half + 1),
  }),
  { minLength: 1, maxLength: 8, size: 'max' },
);

it('gives equal entries one number as long as somebody holds them, and uses numbers and places again', () => {
  fc.assert(
    fc.property(steps, (all) => {
      const pool = new EntryPool(new KeyTable(1, 2));
      const held = new Map<string, { entry: number; holders: number }>();
      let most = 0;
      for (const { does, first, count, stride } of all) {
        for (let n = 0; n < count; n++) {
          const row = rowOf((first + n * stride) % 8192);
          const known = held.get(row);
          if (does === 'take') {
            const entry = intern(pool, row);
            if (known !== undefined) assert.equal(entry, known.entry);
            held.set(row, { entry, holders: 1 + (known?.holders ?? 0) });
          } else if (known !== undefined) {
            pool.release(known.entry);
            if (--known.holders === 0) held.delete(row);
          }
          most = Math.max(most, held.size);
        }
        const entries = Int32Array.from(held.values(), ({ entry }) => entry);
        assert.equal(new Set(entries).size, held.size);
        assert.equal(pool.copyText(entries, entries.length).toString(), [...held.keys()].join(''));
        for (const { entry, holders } of held.values()) assert.equal(pool.holders[entry], holders);
      }
      assert.equal(pool.length, most);
    }),
    { numRuns: 20 },
  );
});

const rowOf = (n: number) => `${TYPE}\t${n % 64}\t$${'x'.repeat(n % 7)}${n >> 6}\n`;

function intern(pool: EntryPool, row: string): number {
  const bytes = Buffer.from(row);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const event = row.lastIndexOf('\t') + 1;
  const key = pool.keys.intern(bytes, view, 0, event, TYPE.length);
  return pool.intern(key, bytes, view, event, bytes.length);
}
