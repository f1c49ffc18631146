import { isUtf8 } from 'node:buffer';
import type { Readable } from 'node:stream';
import { InputError } from '../../errors.js';
import { decodedField } from '../../state/copy-text.js';
import { AllGroupsBuilder, NO_ROOM, type AllGroups } from '../all-groups.js';
import type { AllRooms, RoomToOpen } from '../all-rooms.js';
import { chunkStream } from '../chunk-stream.js';
import { describeIrregularities } from '../describe-irregularities.js';
import { IdFinder } from '../id-list.js';
import type { RoomSource } from '../room-source.js';
import { ChunkPool } from '../sort/chunk-pool.js';
import { Pieces } from '../sort/pieces.js';
import type { Run } from '../sort/run.js';
import { RunChunks } from '../sort/run-chunks.js';
import { ExternalSort } from '../sort/sort-lines.js';
import { copyLines, copyStretches } from './copy-lines.js';
import { EmptyTables } from './empty-tables.js';
import type { FilesSourceSettings } from './files-source.js';
import { findInputs } from './find-inputs.js';
import { rereadable, type Input } from './input.js';
import { readEdges } from './room-edges.js';
import { RoomNumbers } from './room-numbers.js';
import { RoomsGraph } from './rooms-graph.js';
import { StrayRows } from './stray-rows.js';
import { Work } from './work.js';

/**
 * Opens every room in exports of the tables, which are read once: the rows are sorted by room and state
 * group. Holds about 100 bytes a room, and of all rooms 28 bytes a group while the headers are read, 20
 * afterwards; and what one room takes.
 *
 * @throws InputError if the inputs are not these tables, OutputError if a temporary file can't be written,
 *   and the signal's reason when it is aborted
 */
export async function openFilesRooms(
  settings: Omit<FilesSourceSettings, 'room' | 'range'>,
): Promise<AllRooms> {
  const { inputs, tables: givenTables = {}, stdin, tmpdir, signal, keepTables = false } = settings;
  const work = new Work(tmpdir, signal);
  try {
    const temporaryFile = () => work.temporaryFile();
    const given = { inputs, tables: givenTables, stdin };
    const { tables, warnings } = await findInputs(given, temporaryFile, work.signal);
    let { state_group_edges: edges, state_groups_state: rows } = tables;
    const { state_groups } = tables;
    // Without the groups' own table the rows are read twice.
    if (keepTables || state_groups === undefined) rows = await rereadable(rows, temporaryFile);
    if (keepTables) edges = await rereadable(edges, temporaryFile);
    const rooms = new RoomNumbers();
    const builder = new AllGroupsBuilder();
    if (state_groups === undefined) await readGroups(rows, 'state_groups_state', rooms, builder);
    else await readGroups(state_groups, 'state_groups', rooms, builder);
    const count = await readEdges(edges, (group, prev) => builder.addEdge(group, prev));
    return new FilesRooms(settings, work, {
      rows,
      edges,
      hasEdges: count > 0,
      rooms,
      groups: builder.finish(),
      isComplete: state_groups !== undefined,
      warnings,
    });
  } catch (error) {
    await work.end();
    signal?.throwIfAborted();
    throw error;
  }
}

/** Reads which groups there are, and of which room; of a group that rows give several rooms, the first. */
async function readGroups(
  input: Input,
  table: 'state_groups' | 'state_groups_state',
  rooms: RoomNumbers,
  builder: AllGroupsBuilder,
): Promise<void> {
  let group = NaN;
  const lines = table === 'state_groups' ? copyLines(input, table) : copyStretches(input);
  for await (const { bytes, count, starts, groups } of lines) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0; i < count; i++) {
      if (groups[i] === group) continue;
      group = groups[i]!;
      builder.addGroup(group, rooms.at(bytes, view, starts[i]));
    }
  }
}

interface Found {
  readonly rows: Input;
  readonly edges: Input;
  readonly hasEdges: boolean;
  readonly rooms: RoomNumbers;
  readonly groups: AllGroups;
  /** Whether all groups are known, those without rows too. */
  readonly isComplete: boolean;
  readonly warnings: readonly string[];
}

class FilesRooms implements AllRooms {
  readonly count: number;
  readonly warnings: string[];
  readonly #settings: Omit<FilesSourceSettings, 'room' | 'range'>;
  readonly #work: Work;
  readonly #found: Found;
  readonly #graph: RoomsGraph;
  /** The numbers of the rooms in the order of their ids. */
  readonly #order: Int32Array;
  readonly #sort: ExternalSort;
  readonly #chunks = new ChunkPool();
  #reading: Readable | undefined;
  readonly #stray = new StrayRows();

  constructor(settings: Omit<FilesSourceSettings, 'room' | 'range'>, work: Work, found: Found) {
    this.#settings = settings;
    this.#work = work;
    this.#found = found;
    const { rooms, isComplete } = found;
    this.count = rooms.count;
    this.warnings = [...found.warnings];
    if (!isComplete) {
      this.warnings.push(
        'Without the table state_groups only groups that have rows are known. Groups without rows were not counted, and stay as they are.',
      );
    }
    const nameless = isComplete ? 'missing-group' : 'out-of-range';
    // As a database gives them: in COPY text a tab has another place.
    const names = Array.from({ length: rooms.count }, (_, number) =>
      Buffer.from(decodedField(rooms.bytesOf(number)).toString()),
    );
    this.#order = Int32Array.from(names.keys()).sort((a, b) => names[a].compare(names[b]));
    const rank = new Int32Array(rooms.count);
    this.#order.forEach((number, at) => (rank[number] = at));
    found.groups.rooms.forEach((room, group) => {
      if (room !== NO_ROOM) found.groups.rooms[group] = rank[room]!;
    });
    this.#graph = new RoomsGraph(found.groups, rooms.count, nameless);
    const { memory, tmpdir } = settings;
    this.#sort = new ExternalSort({ read: () => this.#pieces() }, { memory, tmpdir });
  }

  async *rooms(): AsyncGenerator<RoomToOpen, void, undefined> {
    const chunks = new RunChunks(await this.#sortRows(), this.#chunks);
    for (let number = 0; number < this.count; number++) {
      yield {
        name: this.#nameOf(number).toString(),
        open: async () => this.#open(number, chunks),
      };
      await this.#stopReading();
    }
    const stray = this.#stray.warnings('');
    if (this.count === 0 && stray.length > 0) {
      throw new InputError(
        'The table state_groups has no rows, though state_groups_state has: it was not exported whole.',
      );
    }
    this.warnings.push(...stray);
  }

  storedTables() {
    return this.#found;
  }

  async close(): Promise<void> {
    this.#work.stop();
    await this.#stopReading();
    await this.#sort.close();
    await this.#work.end();
  }

  #open(number: number, chunks: RunChunks): RoomSource {
    const name = this.#nameOf(number);
    if (!isUtf8(name)) throw new InputError('The id of the room is not in UTF-8.');
    const groups = this.#graph.tableOf(number);
    return {
      room: name.toString(),
      groups,
      snapshotTime: undefined,
      rowColumns: 'with-room',
      warnings: describeIrregularities(groups),
      rows: () => {
        const [from, to] = [this.#graph.keyOf(number, 0), this.#graph.keyOf(number + 1, 0)];
        this.#reading = chunkStream(chunks.between(from, to));
        return this.#reading;
      },
      giveBack: (chunk) => this.#chunks.giveBack(chunk),
      close: () => this.#stopReading(),
    };
  }

  #nameOf(number: number): Buffer {
    return decodedField(this.#found.rooms.bytesOf(this.#order[number]));
  }

  async #sortRows(): Promise<Run> {
    try {
      return await this.#sort.run();
    } catch (error) {
      this.#settings.signal?.throwIfAborted();
      throw error;
    }
  }

  async #stopReading(): Promise<void> {
    const rows = this.#reading;
    this.#reading = undefined;
    if (rows === undefined || rows.closed) return;
    rows.destroy();
    await new Promise((resolve) => rows.once('close', resolve));
  }

  /** All rows in the order of the input, with their places in the order of rooms and groups. */
  async *#pieces(): AsyncGenerator<Pieces, void, undefined> {
    const { rows, edges, hasEdges, groups: all } = this.#found;
    const counts = { groups: all.ids.length, rooms: this.count };
    const emptyTables = new EmptyTables({ edges, rows, hasEdges, ...counts });
    const finder = new IdFinder(all.ids);
    const outsiders = this.#graph.outsiders();
    const pieces = new Pieces();
    let group = NaN;
    let key = NO_ROOM;
    let index = -1;
    let others: readonly number[] = [];
    for await (const { bytes, position, count, starts, groups } of copyStretches(rows)) {
      pieces.reset(bytes, position);
      for (let i = 0; i < count; i++) {
        if (groups[i] !== group) {
          group = groups[i]!;
          index = finder.indexOf(group);
          const room = index < 0 ? NO_ROOM : all.rooms[index];
          key = room === NO_ROOM ? NO_ROOM : this.#graph.keyOf(room, index);
          others = outsiders.keysOf(index);
        }
        emptyTables.addRows(index, bytes, starts[i], starts[i + 1]);
        if (key !== NO_ROOM) pieces.add(key, starts[i], starts[i + 1]);
        else if (others.length === 0)
          this.#stray.add(group, bytes.subarray(starts[i], starts[i + 1]));
        for (const other of others) pieces.add(other, starts[i], starts[i + 1]);
      }
      if (pieces.count > 0) yield pieces;
    }
    emptyTables.check((at) => all.rooms[at]);
  }
}
