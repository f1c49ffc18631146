import { ByteHash } from '../state/byte-hash.js';

/**
 * Postgres's `hashtextextended(format('%s %s %s', state_group, old_predecessor, new_predecessor), 0)`. It is part
 * of what a guard compares: a new predecessor that was spoilt on the way must not be taken for the planned one.
 */
export function idsHash(
  stateGroup: number,
  oldPredecessor: number | undefined,
  newPredecessor: number | undefined,
): bigint {
  const ids = Buffer.from(`${stateGroup} ${oldPredecessor ?? ''} ${newPredecessor ?? ''}`);
  const hash = new ByteHash();
  hash.update(new DataView(ids.buffer, ids.byteOffset, ids.length), 0, ids.length, 0, 0);
  return (BigInt(hash.high) << 32n) + BigInt(hash.low >>> 0);
}
