import { RoomNotFoundError } from '../errors.js';

/** Which of a room's state groups are compressed. */
export interface GroupRange {
  /** Only groups with a larger id (exclusive), as the old tool's `-b`. */
  readonly minStateGroup?: number;
  /** Only groups with this id or a smaller one (inclusive), as the old tool's `-s`. */
  readonly maxStateGroup?: number;
  /** Only this many groups, the smallest ids above `minStateGroup`, as the old tool's `-n`. */
  readonly groupsToCompress?: number;
}

/** That a room has groups, so many from `first` to `last`, and none of them is in range. */
export function noneInRange(
  room: string,
  { count, first, last }: Readonly<Record<'count' | 'first' | 'last', number | string>>,
  { minStateGroup, maxStateGroup }: GroupRange,
): RoomNotFoundError {
  const limits = [
    ...(minStateGroup === undefined ? [] : [`above ${minStateGroup}`]),
    ...(maxStateGroup === undefined ? [] : [`up to ${maxStateGroup}`]),
  ];
  return new RoomNotFoundError(
    `None of the ${count} state groups of room '${room}', from ${first} to ${last}, is ${limits.join(' and ')}.`,
  );
}
