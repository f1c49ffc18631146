import { Room } from './rooms.js';
import type { RoomSettings } from './rooms.js';

/**
 * The fewest rows that a line of groups can take with chains of at most `hops` groups, of which `headroom`
 * are left under the last, if a delta over `x` groups takes the same everywhere: as many rows as keys
 * change, on average, in `x` groups.
 *
 * Below a group with `r` hops left, `n` groups take `T(n, r)` rows. Of those that stand right on it the
 * last one is the `x`-th: before it are `x - 1` groups below the same one, and behind it `n - x` below
 * the `x`-th with a hop less, so that
 * `T(n, r) = min over x of T(x - 1, r) + d(x) + T(n - x, r - 1)`, and `T(n, 0)` is infinite. With the
 * line's last group among them they take `E(n, r)`, which is the same but for its last part,
 * `E(n - x, r - 1)`, and `E(0, r)` is infinite where `r` is less than the headroom.
 *
 * Deltas that cross each other are left out: on a line they gain nothing. Time is `hops × n² / 2` steps.
 */
export function lineOptimum(settings: RoomSettings, hops: number, headroom: number): number {
  const changed = changedKeys(settings);
  const n = settings.groups - 1;
  let below = new Float64Array(n + 1).fill(Infinity);
  below[0] = 0;
  let endBelow = new Float64Array(n + 1).fill(Infinity);
  if (headroom === 0) endBelow[0] = 0;
  for (let left = 1; left < hops; left++) {
    const rows = new Float64Array(n + 1);
    const end = new Float64Array(n + 1);
    if (left < headroom) end[0] = Infinity;
    for (let groups = 1; groups <= n; groups++) {
      let least = Infinity;
      let leastEnd = Infinity;
      for (let x = 1; x <= groups; x++) {
        const start = rows[x - 1] + changed[x];
        least = Math.min(least, start + below[groups - x]);
        leastEnd = Math.min(leastEnd, start + endBelow[groups - x]);
      }
      rows[groups] = least;
      end[groups] = leastEnd;
    }
    below = rows;
    endBelow = end;
  }
  return endBelow[n];
}

/** By `x` the mean number of keys that change in `x` groups, of all but the first, which has no rows. */
function changedKeys(settings: RoomSettings): Float64Array {
  const { groups, keys } = settings;
  const room = new Room(settings);
  const runs = new Float64Array(groups);
  const last = new Int32Array(keys);
  const before = room.next(1).state.slice();
  for (let group = 1; group < groups; group++) {
    const { state } = room.next(group + 1);
    for (let key = 0; key < keys; key++) {
      if (state[key] === before[key]) continue;
      // A key counts once in a run: at the first group that changes it.
      addRuns(runs, group - last[key], groups - group);
      last[key] = group;
    }
    before.set(state);
  }
  return runs.map((sum, x) => (x === 0 ? 0 : sum / (groups - x)));
}

/**
 * Adds, by their length, the runs of groups that hold a group but not the one `gap` before it, where the
 * line has `left` groups from it on.
 */
function addRuns(runs: Float64Array, gap: number, left: number): void {
  const end = Math.min(runs.length, gap + left);
  // So many places, counted from a run's start, can be that group's.
  for (let x = 1; x < end; x++) runs[x] += Math.min(gap, x) - Math.max(0, x - left);
}
