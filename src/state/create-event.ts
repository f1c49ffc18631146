/**
 * The row of a room's m.room.create event, whose state key is empty and which no full state is without. So it tells
 * whether fields are what they should be.
 */

/** Its type. */
export const CREATE = 'm.room.create';

/** Whether a key is that of the event. */
export function isCreate(type: string, stateKey: string): boolean {
  return type === CREATE && stateKey === '';
}

/** What is wrong with the fields of a row, as a sentence's end behind its place; undefined if nothing is. */
export function whyNoRow(type: string, stateKey: string, event: string): string | undefined {
  const isOther =
    (type === '' && stateKey === CREATE) || (type === CREATE && event === '' && stateKey !== '');
  if (isOther) {
    return `has '${type}' for a type, '${stateKey}' for a state key and '${event}' for an event: the columns are in another order than in the table. Export it with COPY state_groups_state TO STDOUT.`;
  }
  // An empty text between quotes of any kind.
  if (type === CREATE && /^([^\p{L}\p{N}])\1$/u.test(stateKey)) {
    return `has an ${CREATE} event with the state key ${stateKey}, which is an empty text in quotes: this is CSV, with tabs between the fields or with quotes of its own. Export the table with COPY state_groups_state TO STDOUT.`;
  }
  return undefined;
}
