import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { chainsToCome, SYNAPSE_HOPS, UNENDING } from '../src/planner/chains-to-come.js';

/** Trees of groups, mostly chains, of which some are as long as Synapse makes them. */
const trees = fc
  .array(fc.oneof({ weight: 60, arbitrary: fc.constant(1) }, fc.nat(300)), { maxLength: 400 })
  .map((backs) => Int32Array.from(backs, (back, group) => Math.max(-1, group - Math.max(1, back))));

function naive(prev: Int32Array): number[] | undefined {
  const hops = (group: number): number => (group < 0 ? 0 : 1 + hops(prev[group]));
  const all = [...prev.keys()];
  const longest = Math.max(0, ...all.map(hops));
  if (longest !== SYNAPSE_HOPS) return undefined;
  const toCome = (group: number): number =>
    hops(group) === SYNAPSE_HOPS || (!prev.includes(group) && prev[group + 1] === -1)
      ? Infinity
      : Math.max(0, ...all.filter((on) => prev[on] === group).map((on) => 1 + toCome(on)));
  return all.map((group) => Math.min(UNENDING, toCome(group)));
}

describe('the chains to come', () => {
  it('are those of a naive model', () => {
    fc.assert(
      fc.property(trees, (prev) => {
        assert.deepEqual(toArray(chainsToCome(prev)), naive(prev));
      }),
      { numRuns: 300 },
    );
  });

  it('end where a branch ends, and not where Synapse cut one off', () => {
    const prev = Int32Array.from({ length: 105 }, (_, group) => group - 1);
    prev[100] = -1;
    prev[104] = 49;
    const toCome = chainsToCome(prev)!;
    assert.deepEqual([toCome[0], toCome[99], toCome[100]], [UNENDING, UNENDING, 3]);
    assert.deepEqual([toCome[49], toCome[104]], [UNENDING, 0]);
  });

  it('tell nothing of a room with longer or only shorter chains', () => {
    const line = (length: number) => Int32Array.from({ length }, (_, group) => group - 1);
    assert.equal(chainsToCome(line(99)), undefined);
    assert.equal(chainsToCome(line(101)), undefined);
    assert.notEqual(chainsToCome(line(100)), undefined);
  });
});

const toArray = (numbers: Uint8Array | undefined) => numbers && [...numbers];
