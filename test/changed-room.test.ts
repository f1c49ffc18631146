import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import type { RoomChange } from '../src/changes/room-change.js';
import { InputError, StatesDifferError } from '../src/errors.js';
import { withChanges } from '../src/verify/changed-room.js';
import { compareRooms } from '../src/verify/compare-rooms.js';
import { fixture, LARGE_ROOM, temporaryFolder } from './support/fixtures.js';
import { rooms, type Room } from './support/naive-room.js';
import { ROOM, shape, sourceOf } from './support/naive-source.js';
import { runCli } from './support/run-cli.js';

const SMALL = '!MlmO6RiERMEwPQNvXSAjqHDDQP-s6jpT6UOy23RaJOY';

/** The changes that give groups of a room the encodings that they have in another. */
async function* changesTo(
  room: Room,
  ids: readonly number[],
  otherId = 2 ** 50,
): AsyncGenerator<RoomChange> {
  yield changeOf('!other:example.org', { id: otherId, predecessors: [], rows: [['a\t', '$1']] });
  for (const id of ids)
    yield changeOf(
      ROOM,
      room.find((group) => group.id === id)!,
    );
}

function changeOf(
  room: string,
  { id, predecessors, rows }: Pick<Room[number], 'id' | 'predecessors' | 'rows'>,
): RoomChange {
  const lines = rows.map(([key, event]) => `${key}\t${event}\n`).join('');
  return {
    room,
    group: {
      stateGroup: id,
      oldPredecessor: undefined,
      newPredecessor: predecessors[0],
      oldRows: 0,
      newRows: rows.length,
      change: { oldHash: 0n, newRowsHash: 0n, rows: Buffer.from(lines, 'latin1') },
    },
  };
}

const settings = { tmpdir: tmpdir(), memory: 100_000 };

test('a room with changes laid over it is compared as the room that they make', async () => {
  await fc.assert(
    fc.asyncProperty(
      rooms(40, { regular: false }),
      fc.array(fc.tuple(fc.nat(), fc.nat(5), fc.nat()), { minLength: 1, maxLength: 5 }),
      shape,
      fc.constantFrom(1000, 100_000),
      async (room, wanted, form, memory) => {
        const source = sourceOf(room, form);
        const inRange = room.filter(({ reason }) => reason === 'in-range');
        fc.pre(inRange.length > 0);
        const after = room.map((group) => ({ ...group }));
        const ids = new Set<number>();
        for (const [at, what, which] of wanted) {
          const { id } = inRange[at % inRange.length];
          const group = after.find((other) => other.id === id)!;
          const others = [...source.groups.ids];
          ids.add(id);
          group.predecessors = group.predecessors.slice(0, 1);
          if (what === 0) group.predecessors = [];
          if (what === 1) group.predecessors = [others[which % others.length]];
          if (what === 2) group.rows = group.rows.slice(1);
          if (what === 3) group.rows = [...group.rows, ['a\\tb\t$', '$new']];
          if (what === 4) group.rows = group.rows.map(([key], n) => [key, `$${n}`]);
        }
        const expected = await compareRooms({ before: source, after: sourceOf(after, form) });
        const order = [...ids].sort((a, b) => (a % 3) - (b % 3) || b - a);
        const laid = await withChanges(sourceOf(room, form), changesTo(after, order), {
          ...settings,
          memory,
        });
        const found = await compareRooms({ before: laid[0], after: laid[1] });
        // Which of two differences is met first depends on how far each side was read.
        assert.equal(found.difference === undefined, expected.difference === undefined);
        if (found.difference === undefined) assert.deepEqual(found, expected);
      },
    ),
  );
});

test('changes that fit no room are refused', async () => {
  const groups = [1, 2, 3].map((id) => ({
    id,
    reason: 'in-range' as const,
    predecessors: [],
    rows: [['a\t', '$1']] as const,
  }));
  const form = { columns: 'with-room', lengths: [100] } as const;
  for (const [changes, error, message] of [
    [
      [{ ...groups[0], id: 4 }],
      StatesDifferError,
      /State group 4 is changed, and room .* has none/,
    ],
    [
      [{ ...groups[1], predecessors: [9] }],
      StatesDifferError,
      /predecessor 9, which is not of the/,
    ],
    [[groups[0], groups[0]], InputError, /State group 1 is changed twice/],
  ] as const) {
    const all = (async function* () {
      for (const change of changes) yield changeOf(ROOM, change);
    })();
    await assert.rejects(withChanges(sourceOf(groups, form), all, settings), (thrown: Error) => {
      assert.ok(thrown instanceof error);
      assert.match(thrown.message, message);
      return true;
    });
  }
  const others = withChanges(sourceOf(groups, form), changesTo([], []), settings);
  await assert.rejects(others, /The changes have none of room '!room:example.org'/);
});

test('where another room that is read through is changed too, that is told', async () => {
  const groups = [
    { id: 1, reason: 'other-room', predecessors: [], rows: [['a\t', '$1']] },
    { id: 2, reason: 'in-range', predecessors: [1], rows: [['b\t', '$2']] },
  ] as const;
  const form = { columns: 'with-room', lengths: [100] } as const;
  const [before, after] = await withChanges(
    sourceOf(groups, form),
    changesTo(groups, [2], 1),
    settings,
  );
  const { compared, difference } = await compareRooms({ before, after });
  assert.deepEqual([compared, difference], [1, undefined]);
  assert.deepEqual(before.warnings, [
    "Groups of this room are stored on groups of room '!other:example.org', which are changed as well and were taken as they are stored: verify that room too.",
  ]);
  const mistaken = withChanges(sourceOf(groups, form), changesTo(groups, [], 2), settings);
  await assert.rejects(mistaken, /State group 2 is changed as one of room '!other:example.org'/);
  const foreign = withChanges(sourceOf(groups, form), changesTo(groups, [1]), settings);
  await assert.rejects(foreign, /State group 1 is changed, and room .* has none of that id/);
});

const FORMS = [
  ['--format=copy'],
  ['--format=sql'],
  ['--format=sql', '-t'],
  ['--format=jsonl'],
] as const;

for (const options of FORMS) {
  test(`verify takes changes made with ${options.join(' ')}, packed or not, and names the group that one of them spoils`, async (t) => {
    const folder = await temporaryFolder(t);
    const [file, packed] = [join(folder, 'out'), join(folder, 'out.gz')];
    for (const output of [file, packed]) {
      const made = await runCli(
        ['-i', fixture('synapse'), '--all-rooms', ...options].concat('-o', output),
      );
      assert.equal(made.code, 0, made.stderr);
    }
    const verify = (changes: string, room: string, stdin?: string) =>
      runCli(
        ['verify', fixture('synapse'), '--changes', changes, '-r', room],
        stdin === undefined ? {} : { stdin },
      );
    for (const [room, count] of [
      [SMALL, 620],
      [LARGE_ROOM, 5394],
    ] as const) {
      for (const changes of [file, packed]) {
        const { code, stdout, stderr } = await verify(changes, room);
        assert.equal(code, 0, stderr);
        assert.equal(
          stdout,
          `Room '${room}': ${count} state groups compared, all states are equal.\n`,
        );
      }
    }
    const text = await readFile(file, 'utf8');
    // The last row of the room.
    const rows = [...text.matchAll(/\bm\.room\.member\W+@[^$\n]*\$/g)];
    const { index, 0: row } = rows.at(-1)!;
    const at = index + row.length;
    const room = text.lastIndexOf(LARGE_ROOM) > text.lastIndexOf(SMALL) ? LARGE_ROOM : SMALL;
    const before = text.slice(0, at).match(/(?<=^|take_state_group\(|"state_group":)\d+/gm);
    // SQL without a guard names the group behind its rows.
    const group = before?.at(-1) ?? /(?<= WHERE id IN \()\d+/.exec(text.slice(at))![0];
    const spoilt = `${text.slice(0, at)}~${text.slice(at)}`;
    const { code, stdout } = await verify('-', room, spoilt);
    assert.equal(code, 8);
    assert.match(stdout, new RegExp(`^State group ${group} differs in one key:$`, 'm'));

    await writeFile(file, text.slice(0, -100));
    const cut = await verify(file, LARGE_ROOM);
    assert.equal(cut.code, 3);
    assert.match(cut.stderr, /: Line \d+ of .*: the file was cut off/);
  });
}

test('verify takes changes or a second source, not both', async () => {
  const files = fixture('synapse');
  const { code, stderr } = await runCli(['verify', files, files, '--changes', files]);
  assert.equal(code, 2);
  assert.match(stderr, /one source beside --changes/);
});
