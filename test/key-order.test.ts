import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { KeyTable } from '../src/state/key-table.js';
import * as naive from './support/naive-copy-text.js';

/** From few keys to so many that walking over all of them is more work than sorting some. */
const keys = fc.oneof(
  fc.uniqueArray(naive.text(6), { maxLength: 60, size: 'max' }),
  fc
    .tuple(fc.integer({ min: 60, max: 2000 }), fc.nat(), fc.boolean())
    .map(([count, factor, ascending]) => {
      const scattered = Array.from(
        { length: count },
        (_, n) => `${((n + 1) * (2 * factor + 1)) >>> 0}`,
      );
      return Array.from(new Set(ascending ? scattered.sort() : scattered));
    }),
);

it('arranges entries in the order of the bytes of their keys, whenever the keys came', () => {
  fc.assert(
    fc.property(keys, fc.array(fc.nat(), { maxLength: 60, size: 'max' }), (stateKeys, picks) => {
      const table = new KeyTable(1, 2);
      const texts = stateKeys.map((stateKey) =>
        Buffer.from(`m.room.member\t${naive.encoded(stateKey)}\t`, 'latin1'),
      );
      const intern = (text: Buffer): number =>
        table.intern(
          text,
          new DataView(text.buffer, text.byteOffset, text.length),
          0,
          text.length,
          13,
        );
      assert.deepEqual(texts.map(intern), [...texts.keys()]);
      assert.deepEqual(texts.map(intern), [...texts.keys()], 'each key has one number');

      const picked = [...new Set(picks.map((pick) => pick % Math.max(1, texts.length)))];
      for (const chosen of [picked.filter((key) => key < texts.length), [...texts.keys()]]) {
        // Entries are other numbers than their keys, 0 among them.
        const keyOf = Int32Array.from(texts, (_, entry) => texts.length - 1 - entry);
        const entries = Int32Array.from([...chosen, -1, -2], (key) => (key < 0 ? key : keyOf[key]));
        table.order.arrange(entries, chosen.length, keyOf);
        const expected = chosen.sort((a, b) => Buffer.compare(texts[a], texts[b]));
        assert.deepEqual([...entries], [...expected.map((key) => keyOf[key]), -1, -2]);
      }
    }),
    { numRuns: 100 },
  );
});
