import { decodedField } from '../state/copy-text.js';
import type { EntryPool } from '../state/entry-pool.js';
import type { LiveStates } from '../state/live-states.js';
import { eventsOf } from './joined-events.js';

/** How the states of one group differ. */
export interface StateDifference {
  readonly stateGroup: number;
  /** How many keys the states have otherwise. */
  readonly keys: number;
  /** The first of them in the order of their bytes. */
  readonly type: string;
  readonly stateKey: string;
  /** The key's event: none where the state lacks the key, several where rows contradict each other. */
  readonly before: readonly string[];
  readonly after: readonly string[];
}

/** Describes how two states of a group differ; they must. */
export function differenceOf(
  stateGroup: number,
  states: LiveStates,
  before: number,
  after: number,
): StateDifference {
  const { entries, trie, root } = states;
  let keys = 0;
  let first = -1;
  let firstText = '';
  const differs = (key: number): void => {
    keys++;
    const text = keyText(key, entries);
    if (first >= 0 && text >= firstText) return;
    first = key;
    firstText = text;
  };
  trie.forEach(root[before], (entry) => {
    if (states.get(after, entries.key[entry]) !== entry) differs(entries.key[entry]);
  });
  trie.forEach(root[after], (entry) => {
    if (states.get(before, entries.key[entry]) < 0) differs(entries.key[entry]);
  });
  const events = (entry: number): string[] =>
    entry < 0 ? [] : eventsOf(entry, entries).map(decoded);
  const [type, stateKey] = firstText.split('\t').map(decoded);
  return {
    stateGroup,
    keys,
    type,
    stateKey,
    before: events(states.get(before, first)),
    after: events(states.get(after, first)),
  };
}

/** `type \t state_key \t` in COPY text, a character for each byte. */
function keyText(key: number, { keys }: EntryPool): string {
  const start = keys.place[key] << 2;
  return Buffer.from(keys.arena.bytes.buffer, start, keys.byteLength[key]).toString('latin1');
}

function decoded(field: string): string {
  return decodedField(Buffer.from(field, 'latin1')).toString();
}
