import type { Progress } from '../report/progress-text.js';
import { RoomNotFoundError } from '../errors.js';
import { AllGroupsBuilder } from '../sources/all-groups.js';
import { copyLines } from '../sources/files/copy-lines.js';
import { readEdges } from '../sources/files/room-edges.js';
import type { Input } from '../sources/files/input.js';
import { RoomNumbers } from '../sources/files/room-numbers.js';
import { IdFinder } from '../sources/id-list.js';
import { Findings, type Finding } from './findings.js';
import { GroupGraph } from './group-graph.js';
import { RepeatedKeys } from './repeated-keys.js';

/** The three tables as COPY text, of one room or of all; each is read once, in this order. */
export interface StateTables {
  readonly groups: Input;
  readonly edges: Input;
  /**
   * All rows, in ascending order of state group. For one room those of the groups `wanted`, and, where
   * they can be found, the room's that belong to no group.
   */
  rows(wanted: Float64Array | undefined): Input;
  /** Closes connections and removes temporary files. Safe to call at any time, and twice. */
  close(): Promise<void>;
}

/** What a check found. With a room, all figures are of its groups. */
export interface CheckReport {
  readonly room: string | undefined;
  readonly rooms: number;
  readonly stateGroups: number;
  readonly edges: number;
  readonly rows: number;
  /** Groups in the longest chain. */
  readonly longestChain: number;
  /** Whether nothing is wrong. */
  readonly isClean: boolean;
  /** All that was looked for, found or not. */
  readonly findings: readonly Finding[];
}

export interface CheckSettings {
  /** They are closed when it ends, however it ends. */
  readonly tables: StateTables;
  /** Only what concerns this room's groups is looked for; without it, everything. */
  readonly room: string | undefined;
  /** Called after each chunk of rows. */
  readonly onProgress?: (progress: Progress) => void;
}

/**
 * Looks for what is wrong in the state tables. Nothing is written. Memory grows by 12 bytes with each
 * group and by 16 with each edge, and by up to 42 with each group once these are read.
 *
 * @throws RoomNotFoundError if the room has no state groups; InputError, DatabaseError, OutputError from
 *   the tables
 */
export async function checkTables(settings: CheckSettings): Promise<CheckReport> {
  const { tables, room } = settings;
  try {
    const rooms = new RoomNumbers();
    const graph = await readGraph(tables, rooms, room);
    const findings = new Findings();
    graph.checkEdges(findings);
    const rows = await checkRows(settings, graph, findings);
    graph.checkEmptyGroups(findings);
    return {
      room,
      rooms: room === undefined ? rooms.count : 1,
      stateGroups: graph.groups,
      edges: graph.edges,
      rows,
      longestChain: graph.longestChain,
      isClean: findings.all.every(({ count, isInformation }) => count === 0 || isInformation),
      findings: findings.all,
    };
  } finally {
    await tables.close();
  }
}

async function readGraph(
  tables: StateTables,
  rooms: RoomNumbers,
  room: string | undefined,
): Promise<GroupGraph> {
  const builder = new AllGroupsBuilder();
  const wanted = room === undefined ? undefined : rooms.ofName(room);
  let isThere = room === undefined;
  for await (const { bytes, count, starts, groups } of copyLines(tables.groups, 'state_groups')) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0; i < count; i++) {
      const number = rooms.at(bytes, view, starts[i]);
      isThere ||= number === wanted;
      builder.addGroup(groups[i], number);
    }
  }
  if (!isThere) {
    throw new RoomNotFoundError(
      `${tables.groups.name} holds no state groups of room '${room}'. Check the spelling of the room's id.`,
    );
  }
  await readEdges(tables.edges, (group, prev) => builder.addEdge(group, prev));
  return new GroupGraph(builder.finish(), wanted);
}

/** Looks at the rows, and returns how many these are. */
async function checkRows(
  { tables, room, onProgress }: CheckSettings,
  graph: GroupGraph,
  findings: Findings,
): Promise<number> {
  const finder = new IdFinder(graph.ids);
  const keys = new RepeatedKeys(findings);
  const input = tables.rows(room === undefined ? undefined : graph.wantedIds());
  let rows = 0;
  let stateGroup = NaN;
  let index = -1;
  let isKnown = false;
  for await (const { bytes, count, starts, groups } of copyLines(input, 'state_groups_state')) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0; i < count; i++) {
      const isFirst = groups[i] !== stateGroup;
      if (isFirst) {
        stateGroup = groups[i];
        index = finder.indexOf(stateGroup);
        isKnown = index >= 0 && graph.isKnown(index);
        if (isKnown) graph.markRows(index);
      }
      // A row may name a room that its group is not of.
      if (isKnown && !graph.isWanted(index)) continue;
      if (!isKnown) findings.add('row-of-no-group', isFirst ? () => ({ stateGroup }) : undefined);
      rows++;
      keys.add(stateGroup, bytes, view, starts[i], starts[i + 1] - 1);
    }
    onProgress?.({ groups: Math.max(0, index), totalGroups: graph.ids.length, rows });
  }
  return rows;
}
