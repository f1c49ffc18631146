import type { Estimates, RoomEstimate } from '../auto/room-estimates.js';
import { compressRoom } from '../compress.js';
import { RoomNotFoundError } from '../errors.js';
import { counted } from '../report/counted.js';
import type { Progress } from '../report/progress-text.js';
import { readableSize } from '../report/size.js';
import type { Statistics } from '../report/statistics.js';
import type { RoomToOpen } from '../sources/all-rooms.js';
import { Arguments, readArguments } from './arguments.js';
import type { Answer } from './arguments.js';
import { InterruptedError } from './interruption.js';
import type { Interruption } from './interruption.js';
import { OPTIONS } from './options.js';
import type { CommandOptions } from './option-names.js';
import { onOneLine } from './printable.js';
import { printResult } from './print-result.js';
import type { StatusLine } from './status-line.js';

/** What a command line of `rooms` asks for, checked. */
export interface RoomsCommand {
  readonly dsn: string;
  /** Only these rooms; all if there are none. */
  readonly rooms: readonly string[];
  readonly exact: boolean;
  readonly json: boolean;
}

const ROOMS_OPTIONS = {
  'postgres-url': { ...OPTIONS['postgres-url'], group: undefined },
  room: {
    alias: 'r',
    nargs: 1,
    describe: 'Only this room. May be given several times',
  },
  exact: {
    type: 'boolean',
    describe: 'Read and plan every room, as compressing does, instead of estimating',
  },
  json: { type: 'boolean', describe: 'Print the result as a JSON object' },
} as const satisfies CommandOptions;

/** Reads the arguments after `rooms`; throws UsageError. */
export function parseRoomsCommand(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): RoomsCommand | Answer {
  const given = readArguments(args, ROOMS_OPTIONS, (parser) =>
    parser
      .usage('Usage: $0 rooms -p DSN [options]')
      .usage('Lists the rooms of a database by the rows that the adaptive strategy would save.')
      .example('$0 rooms -p postgresql://host/synapse | head', '')
      .epilogue(
        'State groups and snapshots are counted; rows are estimated from a few snapshots of each room ' +
          'and a sample of all deltas, without a scan of state_groups_state. A gain is the rows of all ' +
          'snapshots but one, less what takes the place of each: about a row for each group since the ' +
          'snapshot before, a hundred at most. --exact reads the whole ' +
          'table, room by room, each in a snapshot of its own. The database is only read.',
      ),
  );
  if (!(given instanceof Arguments)) return given;
  given.refusePositionals();
  const dsn = given.database(env, 'Which database? Give it with -p.');
  return {
    dsn,
    rooms: given.texts('room'),
    exact: given.has('exact'),
    json: given.has('json'),
  };
}

/**
 * Lists rooms as the command line says.
 *
 * @throws CompressStateError, an InterruptedError if a signal ended it
 */
export async function runRoomsCommand(
  command: RoomsCommand,
  status: StatusLine,
  interruption: Interruption,
): Promise<void> {
  const { dsn, rooms, exact, json } = command;
  const { signal } = interruption;
  try {
    const { readEstimates, unknownRoom } = await import('../auto/room-estimates.js');
    const estimates = await readEstimates({ dsn, env: process.env, rooms, signal });
    for (const room of rooms) {
      if (estimates.rooms.some((estimate) => estimate.room === room)) continue;
      if (rooms.length === 1) throw new RoomNotFoundError(unknownRoom(room));
      status.say(`Warning: ${unknownRoom(room)}`);
    }
    const listed = exact
      ? await exactly(dsn, estimates.rooms, status, signal)
      : [...estimates.rooms];
    listed.sort((a, b) => b.gain - a.gain || b.rows - a.rows);
    status.clear();
    const { tableBytes } = estimates;
    await printResult(
      json
        ? `${JSON.stringify({ exact, tableBytes, rooms: listed })}\n`
        : roomsText({ tableBytes, rooms: listed }, exact),
    );
  } catch (error) {
    if (interruption.by === undefined) throw error;
    throw new InterruptedError(interruption.by, 'Nothing was written.', { cause: error });
  } finally {
    status.clear();
  }
}

/** Rooms of about so many groups together are planned in one snapshot: VACUUM is not to wait for hours. */
const GROUPS_PER_SNAPSHOT = 20_000;

/** Rows and gains as planning finds them. */
async function exactly(
  dsn: string,
  estimates: readonly RoomEstimate[],
  status: StatusLine,
  signal: AbortSignal,
): Promise<RoomEstimate[]> {
  const { openPostgresRooms } = await import('../sources/postgres/postgres-rooms.js');
  const exact: RoomEstimate[] = [];
  let groups = 0;
  let rows = 0;
  const totalGroups = estimates.reduce((total, { stateGroups }) => total + stateGroups, 0);
  for (const part of snapshotParts(estimates)) {
    const all = await openPostgresRooms({
      dsn,
      env: process.env,
      rooms: [...part.keys()],
      signal,
    });
    try {
      for await (const room of all.rooms()) {
        const estimate = part.get(room.name)!;
        const found = await planned(room, signal, (ofRoom) =>
          status.progress({
            groups: groups + ofRoom.groups,
            totalGroups,
            rows: rows + ofRoom.rows,
          }),
        );
        groups += estimate.stateGroups;
        if (found === undefined) continue;
        const { rowsBefore, rowsAfter } = found;
        exact.push({ ...estimate, rows: rowsBefore, gain: Math.max(0, rowsBefore - rowsAfter) });
        rows += rowsBefore;
      }
    } finally {
      await all.close();
    }
  }
  return exact;
}

/** The figures of a room's plan; undefined if it was deleted meanwhile. */
async function planned(
  room: RoomToOpen,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void,
): Promise<Statistics | undefined> {
  try {
    return await compressRoom({ source: await room.open(), signal, onProgress });
  } catch (error) {
    if (!(error instanceof RoomNotFoundError)) throw error;
    return undefined;
  }
}

/** The rooms of each snapshot, by their ids. */
function* snapshotParts(
  estimates: readonly RoomEstimate[],
): Generator<Map<string, RoomEstimate>, void, undefined> {
  let part = new Map<string, RoomEstimate>();
  let groups = 0;
  for (const estimate of estimates) {
    part.set(estimate.room, estimate);
    groups += estimate.stateGroups;
    if (groups < GROUPS_PER_SNAPSHOT) continue;
    yield part;
    part = new Map();
    groups = 0;
  }
  if (part.size > 0) yield part;
}

function roomsText({ tableBytes, rooms }: Estimates, exact: boolean): string {
  const total = rooms.reduce((sum, room) => sum + room.rows, 0);
  const gain = rooms.reduce((sum, room) => sum + room.gain, 0);
  const about = exact ? '' : 'about ';
  const lines = [
    ['gain', 'rows', 'state groups', 'new ones', 'room'],
    ...rooms.map((room) => [
      ...[room.gain, room.rows, room.stateGroups, room.newGroups].map((n) =>
        n.toLocaleString('en'),
      ),
      onOneLine(room.room),
    ]),
  ];
  const widths = [0, 1, 2, 3].map((column) =>
    lines.reduce((width, line) => Math.max(width, line[column].length), 0),
  );
  return [
    `${counted(rooms.length, 'room')} with ${about}${total.toLocaleString('en')} rows in ${readableSize(tableBytes)}; ${about}${gain.toLocaleString('en')} of them can be saved.`,
    ...lines.map((line) =>
      line.map((field, column) => field.padStart(widths[column] ?? 0)).join('  '),
    ),
    '',
  ].join('\n');
}
