import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import fc from 'fast-check';
import { readChanges, readEncodings } from '../src/changes/read-changes.js';
import type { NewEncoding } from '../src/changes/room-change.js';
import { InputError, StatesDifferError } from '../src/errors.js';
import { AdaptivePlanner } from '../src/planner/adaptive.js';
import { isChanged } from '../src/planner/planned-group.js';
import type { ChangedGroup } from '../src/planner/planned-group.js';
import { endOfRooms } from '../src/sinks/change-sink.js';
import type { Format } from '../src/sinks/change-sink.js';
import { copySink } from '../src/sinks/copy.js';
import { jsonlSink } from '../src/sinks/jsonl.js';
import { sqlSink } from '../src/sinks/sql.js';
import { withChanges } from '../src/verify/changed-room.js';
import { compareRooms } from '../src/verify/compare-rooms.js';
import { cut, encoded, lengths, overwritten, text } from './support/naive-copy-text.js';
import { rooms, stateOf, tableOf } from './support/naive-room.js';
import type { Encodings, Room } from './support/naive-room.js';
import { ROOM, sourceOf } from './support/naive-source.js';
import { planRoom } from './support/plan-room.js';

const FORMS = ['sql', 'sql -t', 'copy', 'jsonl'] as const;
type Form = (typeof FORMS)[number];

/** The changes of a room, as one run of the program has them. */
interface Script {
  readonly room: string;
  readonly changes: readonly ChangedGroup[];
}

/** The scripts one after the other, or together as one. */
async function written(form: Form, scripts: readonly Script[], isOne = false): Promise<Buffer> {
  const texts: Buffer[] = [];
  for (const [index, { room, changes }] of scripts.entries()) {
    const place = isOne && { amongRooms: index === 0 ? ('first' as const) : ('further' as const) };
    const header = [
      'Written by synapse_compress_state 0.1.0.',
      `Room ${JSON.stringify(room)}, state groups 1 to 9; levels.`,
      'Apply it.',
    ];
    const sink = {
      sql: () => sqlSink({ room, header, transactions: false, ...place }),
      'sql -t': () => sqlSink({ room, header, transactions: true, ...place }),
      copy: () => copySink({ room, header, batch: 2, ...place }),
      jsonl: () => jsonlSink({ room }),
    }[form]();
    texts.push(await buffer(Readable.from([changes]).pipe(sink)));
  }
  if (isOne) {
    const groups = scripts.flatMap(({ changes }) => changes);
    const rows = groups.reduce((sum, { newRows }) => sum + newRows, 0);
    const [format, transactions] = form.split(' ') as [Format, string?];
    const settings = { format, transactions: transactions !== undefined };
    texts.push(Buffer.from(endOfRooms(settings, groups.length, rows)));
  }
  return Buffer.concat(texts);
}

/** What is to be read of a form. */
function expected(form: Form, scripts: readonly Script[]): NewEncoding[] {
  return scripts.flatMap(({ room, changes }) =>
    changes.map((group) => {
      if (form !== 'sql') return { room, group };
      const { stateGroup, newPredecessor, change } = group;
      return { room, group: { stateGroup, newPredecessor, change: { rows: change.rows } } };
    }),
  );
}

/** Scripts that say what was read; the other way round than `expected`. */
function scriptsOf(read: readonly NewEncoding[]): Script[] {
  const scripts: { room: string; changes: ChangedGroup[] }[] = [];
  for (const { room, group } of read) {
    if (scripts.at(-1)?.room !== room) scripts.push({ room, changes: [] });
    const { change } = group;
    scripts.at(-1)!.changes.push({
      oldPredecessor: undefined,
      oldRows: 0,
      newRows: change.rows.toString('latin1').split('\n').length - 1,
      ...group,
      change: { oldHash: 0n, newRowsHash: 0n, ...change },
    });
  }
  return scripts;
}

/** What is read before an error, and that error. */
async function readAll(
  bytes: Buffer,
  chunks: readonly number[] = [65_536],
  read: typeof readEncodings = readEncodings,
): Promise<{ read: NewEncoding[]; error: Error | undefined }> {
  const input = {
    read: () => overwritten(cut(bytes, chunks)),
    place: (index: number) => `Line ${index + 1}`,
  };
  const changes: NewEncoding[] = [];
  try {
    for await (const change of read(input)) changes.push(change);
    return { read: changes, error: undefined };
  } catch (error) {
    return { read: changes, error: error as Error };
  }
}

const anyId = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const anyHash = fc.bigInt({ min: -(2n ** 90n), max: 2n ** 90n });
/** Bytes as latin1, mostly no UTF-8; or a text's UTF-8. */
const anyText = fc.oneof(
  text(8),
  fc
    .oneof(
      fc.string({ unit: 'binary', maxLength: 5 }),
      fc.constantFrom('m.room.member', '', '],["', ']}\n{"', "'), ('", '\\.', 'é😀'),
    )
    .map((string) => Buffer.from(string.replaceAll('\0', '')).toString('latin1')),
);
const anyRow = fc
  .tuple(anyText, anyText, anyText)
  .map((fields) => `${fields.map(encoded).join('\t')}\n`);
const anyRows = fc.oneof(
  { weight: 19, arbitrary: fc.array(anyRow, { maxLength: 4 }) },
  // More than a statement takes.
  { weight: 1, arbitrary: anyRow.map((row) => Array<string>(2100).fill(row)) },
);
const anyChange: fc.Arbitrary<ChangedGroup> = fc
  .record({
    stateGroup: anyId,
    oldPredecessor: fc.option(anyId, { nil: undefined }),
    newPredecessor: fc.option(anyId, { nil: undefined }),
    keepsEdge: fc.boolean(),
    oldRows: fc.nat(),
    rows: anyRows,
    oldHash: anyHash,
    newRowsHash: anyHash,
  })
  .map(({ rows, oldHash, newRowsHash, keepsEdge, ...group }) => ({
    ...group,
    ...(keepsEdge && { newPredecessor: group.oldPredecessor }),
    newRows: rows.length,
    change: { oldHash, newRowsHash, rows: Buffer.from(rows.join(''), 'latin1') },
  }));
const anyScripts = fc.uniqueArray(
  fc.record({
    room: fc
      .oneof(fc.string({ unit: 'binary' }), fc.constantFrom('!a:b', "it's\\a\nroom\r", 'NULL, 1'))
      .map((room) => room.replaceAll('\0', '')),
    changes: fc.array(anyChange, { minLength: 1, maxLength: 5 }),
  }),
  { minLength: 1, maxLength: 3, selector: ({ room }) => room },
);

for (const form of FORMS) {
  test(`what is written as ${form} is read again, however it is cut into chunks`, async () => {
    await fc.assert(
      fc.asyncProperty(anyScripts, fc.boolean(), lengths, async (scripts, isOne, chunks) => {
        const { read, error } = await readAll(await written(form, scripts, isOne), chunks);
        assert.ifError(error);
        assert.deepEqual(read, expected(form, scripts));
      }),
    );
  });

  test(`of ${form} that is cut off all complete changes are read, and it is told`, async () => {
    await fc.assert(
      fc.asyncProperty(
        anyScripts,
        fc.boolean(),
        fc.array(fc.nat(), { minLength: 5, maxLength: 5 }),
        async (scripts, isOne, ends) => {
          const bytes = await written(form, scripts, isOne);
          const whole = expected(form, scripts);
          for (const end of ends) {
            const part = bytes.subarray(0, end % bytes.length);
            const { read, error } = await readAll(part);
            assert.deepEqual(read, whole.slice(0, read.length));
            if (error !== undefined) {
              assert.ok(error instanceof InputError, String(error));
              continue;
            }
            // Where it ends between two changes, or two scripts, nothing is missing of those before.
            const known = scriptsOf(whole.slice(0, read.length + 1));
            const oneMore = await written(form, known, isOne);
            assert.ok(
              part.length < oneMore.length,
              `${read.length} changes of ${part.length} bytes`,
            );
          }
        },
      ),
    );
  });

  test(`of ${form} that is damaged nothing is read but what it says`, async () => {
    await fc.assert(
      fc.asyncProperty(
        anyScripts,
        fc.boolean(),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 }), fc.boolean()), {
          minLength: 5,
          maxLength: 5,
        }),
        async (scripts, isOne, damages) => {
          const bytes = await written(form, scripts, isOne);
          // Most of a small file is the guard.
          const changes = Math.max(0, bytes.indexOf('$procedure$;'));
          for (const [at, flipped, isInChanges] of damages) {
            const damaged = Buffer.from(bytes);
            const from = isInChanges ? changes : 0;
            damaged[from + (at % (bytes.length - from))] ^= flipped;
            const { read, error } = await readAll(damaged);
            if (error !== undefined) assert.ok(error instanceof InputError, String(error));
            else await assertSays(form, damaged, read, isOne);
          }
        },
      ),
    );
  });
}

for (const form of ['sql', 'sql -t', 'copy'] as const) {
  test(`a further room of ${form} comes after others, and as what it is named`, async () => {
    const scripts = ['!a', '!b'].map((room) => ({ room, changes: [changeOf(1), changeOf(2)] }));
    const all = (await written(form, scripts, true)).toString();
    const at = all.indexOf('\n-- Room "!b"\n');
    assert.ok(at > 0);
    const refused = {
      'by itself': [all.slice(at + 1), 0],
      'without its line': [all.replace('\n-- Room "!b"\n', ''), 4],
      'by another name': [all.replace('-- Room "!b"', '-- Room "!c"'), 4],
      'before what it sets up': [`${all.slice(at + 1)}${all}`, 0],
    } as const;
    for (const [what, [sql, most]] of Object.entries(refused)) {
      const { read, error } = await readAll(Buffer.from(sql));
      assert.ok(error instanceof InputError, what);
      assert.ok(read.length <= most, `${what}: ${read.length}`);
    }
    // Where the end of the first is missing, other changes are not taken for a further room's.
    if (form === 'sql') return;
    const { error } = await readAll(Buffer.from(all.slice(0, at) + all));
    assert.ok(error instanceof InputError);
  });
}

function changeOf(stateGroup: number): ChangedGroup {
  const change = { oldHash: 1n, newRowsHash: 1n, rows: Buffer.from('a\t\t$a\n') };
  return {
    stateGroup,
    oldPredecessor: undefined,
    newPredecessor: undefined,
    oldRows: 1,
    newRows: 1,
    change,
  };
}

test('between lines of JSON there is space, and nothing that only looks like it', async () => {
  const [scripts] = fc.sample(anyScripts, 1);
  const line = await written('jsonl', scripts);
  for (const space of ['', ' ', '\r\n', '\n\t\n']) {
    const { read, error } = await readAll(Buffer.concat([line, Buffer.from(space), line]));
    assert.ifError(error);
    assert.equal(read.length, 2 * expected('jsonl', scripts).length);
  }
  for (const other of ['\0', '\x0b', '\x1f', '\xa0', '\ufeff', ',']) {
    const { read, error } = await readAll(Buffer.concat([line, Buffer.from(other), line]));
    assert.ok(error instanceof InputError, JSON.stringify(other));
    assert.equal(read.length, expected('jsonl', scripts).length);
  }
});

/** Fails unless the bytes are how the changes are written. */
async function assertSays(
  form: Form,
  bytes: Buffer,
  read: readonly NewEncoding[],
  isOne: boolean,
): Promise<void> {
  const again = await written(form, scriptsOf(read), isOne);
  assert.deepEqual(meaning(form, bytes), meaning(form, again));
}

/** What counts in a file of changes. */
function meaning(form: Form, bytes: Buffer): unknown {
  const lines = bytes.toString('latin1').split('\n');
  if (form === 'jsonl') return jsonMeaning(bytes);
  if (form !== 'copy') return lines.filter((line) => !line.startsWith('-- '));
  // What else there is is for psql.
  return lines.filter((line) => /^\d+\t/.test(line));
}

function jsonMeaning(bytes: Buffer): unknown[] {
  const objects = new TextDecoder('utf-8', { fatal: true })
    .decode(bytes)
    // A quote has a backslash before it where it is part of a text.
    .split(/(?<=\]\})[ \t\n\r]*(?=\{")/);
  return objects.map((object) => {
    const { rows, ...head } = JSON.parse(object) as {
      rows: (string | { base64: string })[][];
    };
    const bytesOf = (field: string | { base64: string }): string =>
      (typeof field === 'string'
        ? Buffer.from(field)
        : Buffer.from(field.base64, 'base64')
      ).toString('latin1');
    return JSON.stringify([head, rows.map((row) => row.map(bytesOf))]);
  });
}

test('SQL without guards is not given to be applied', async () => {
  const [scripts] = fc.sample(anyScripts, 1);
  for (const form of FORMS) {
    const { read, error } = await readAll(await written(form, scripts), [100], readChanges);
    if (form === 'sql') {
      assert.deepEqual(read, []);
      assert.match(
        String(error),
        /^InputError: Line 1 begins changes .* psql -1 -v ON_ERROR_STOP=1/,
      );
    } else {
      assert.ifError(error);
      assert.deepEqual(read, expected(form, scripts));
    }
  }
});

/** The encodings of a room with what was read laid over them. */
function laidOver(room: Room, read: readonly NewEncoding[]): Encodings {
  const encodings = new Map(room.map((group) => [group.id, { ...group }]));
  for (const { group } of read) {
    const { stateGroup, newPredecessor, change } = group;
    const changed = encodings.get(stateGroup)!;
    changed.predecessors = newPredecessor === undefined ? [] : [newPredecessor];
    const lines = change.rows.toString('latin1').split('\n').slice(0, -1);
    changed.rows = lines.map((line) => {
      const tab = line.lastIndexOf('\t');
      return [line.slice(0, tab), line.slice(tab + 1)];
    });
  }
  return encodings;
}

function differing(room: Room, encodings: Encodings): number[] {
  const stored: Encodings = new Map(room.map((group) => [group.id, group]));
  const texts = (id: number, of: Encodings): string =>
    JSON.stringify([...stateOf(id, of)].map(([key, events]) => [key, ...events].join()).sort());
  return room.map(({ id }) => id).filter((id) => texts(id, stored) !== texts(id, encodings));
}

const plannedRooms = rooms(25, { regular: true }).map((room) =>
  room.map((group) => ({ ...group, reason: 'in-range' as const })),
);
const shape = { columns: 'with-room', lengths: [300] } as const;

for (const form of FORMS) {
  test(`verify reads ${form}, and finds what a damaged file does to a group, or refuses it`, async () => {
    let refused = 0;
    let found = 0;
    const verify = async (room: Room, bytes: Buffer) => {
      const input = { read: () => Readable.from([bytes]), place: () => 'Here' };
      const settings = { tmpdir: tmpdir(), memory: 100_000 };
      const both = await withChanges(sourceOf(room, shape), readEncodings(input), settings);
      return compareRooms({ before: both[0], after: both[1] });
    };
    await fc.assert(
      fc.asyncProperty(
        plannedRooms,
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), {
          minLength: 10,
          maxLength: 10,
        }),
        async (room, damages) => {
          const { planned } = await planRoom(room, tableOf(room), new AdaptivePlanner());
          const changes = planned.filter(isChanged);
          fc.pre(changes.length > 0);
          const bytes = await written(form, [{ room: ROOM, changes }]);
          assert.equal((await verify(room, bytes)).difference, undefined);

          const start = Math.max(0, bytes.lastIndexOf('$procedure$;'));
          for (const [at, flipped] of damages) {
            const damaged = Buffer.from(bytes);
            damaged[start + (at % (bytes.length - start))] ^= flipped;
            let difference: { stateGroup: number } | undefined;
            try {
              ({ difference } = await verify(room, damaged));
            } catch (error) {
              const isTold = error instanceof InputError || error instanceof StatesDifferError;
              assert.ok(isTold, String(error));
              refused++;
              continue;
            }
            const { read } = await readAll(damaged);
            const wrong = differing(room, laidOver(room, read));
            if (difference === undefined) {
              assert.deepEqual(wrong, []);
            } else {
              assert.ok(wrong.includes(difference.stateGroup));
              found++;
            }
          }
        },
      ),
    );
    assert.ok(refused > 0 && found > 0, `${refused}, ${found}`);
  });
}
