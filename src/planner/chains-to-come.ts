/** The longest chain that Synapse makes, in groups; the next group on it is a snapshot. */
export const SYNAPSE_HOPS = 100;

/** Where a chain ends because it was the longest, the room goes on behind it. */
export const UNENDING = 255;

/**
 * For each state group, by its index, how many groups the longest chain has that is stored on it, or
 * `UNENDING`. A branch that a merge ends shows by a chain that Synapse did not need to end.
 *
 * Where a snapshot follows, the room may as well go on behind the end: Synapse writes one where a group is deleted
 * that was not referenced. That a key has vanished makes it write one too, but to take that for an end saves less
 * than it costs where groups were deleted.
 *
 * Undefined where the longest chain of the room is not the longest that Synapse makes: then it tells
 * nothing about the room where chains end. Takes a byte a group, and another one meanwhile.
 *
 * @param prev as in `GroupTable`
 */
export function chainsToCome(prev: Int32Array): Uint8Array | undefined {
  const hops = new Uint8Array(prev.length);
  let longest = 0;
  for (let group = 0; group < prev.length; group++) {
    const before = prev[group];
    hops[group] = before < 0 ? 1 : hops[before] + 1;
    if (hops[group] > SYNAPSE_HOPS) return undefined;
    longest = Math.max(longest, hops[group]);
  }
  if (longest < SYNAPSE_HOPS) return undefined;

  const toCome = new Uint8Array(prev.length);
  for (let group = prev.length - 1; group >= 0; group--) {
    const snapshotFollows = toCome[group] === 0 && prev[group + 1] < 0;
    if (hops[group] === SYNAPSE_HOPS || snapshotFollows) toCome[group] = UNENDING;
    const before = prev[group];
    if (before < 0) continue;
    toCome[before] = Math.max(toCome[before], Math.min(UNENDING, toCome[group] + 1));
  }
  return toCome;
}
