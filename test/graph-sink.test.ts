import assert from 'node:assert/strict';
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { PlannedGroup } from '../src/planner/planned-group.js';
import { GRAPH_FILES, graphSink } from '../src/sinks/graphs.js';

const NO_CHANGE = { oldHash: 0n, newRowsHash: 0n, rows: Buffer.alloc(0) };
const GROUPS: readonly PlannedGroup[] = [
  // A root, a group that moves and shrinks, a group that becomes a root, one that stays.
  group(1, [undefined, 3], [undefined, 3]),
  group(2, [undefined, 4], [1, 1]),
  group(5, [2, 2], [undefined, 6]),
  group(9, [5, 0], [5, 0]),
];

function group(
  stateGroup: number,
  [oldPredecessor, oldRows]: [number | undefined, number],
  [newPredecessor, newRows]: [number | undefined, number],
): PlannedGroup {
  const same = oldPredecessor === newPredecessor && oldRows === newRows;
  const change = same ? undefined : NO_CHANGE;
  return { stateGroup, oldPredecessor, oldRows, newPredecessor, newRows, change };
}

/** A file that takes nothing while it is held, and may be told to fail. */
class TestFile extends Writable {
  text = '';
  #held: (() => void) | undefined;

  constructor(private hold = false) {
    super({ highWaterMark: 1000 });
  }

  get isHeld(): boolean {
    return this.#held !== undefined;
  }

  release(): void {
    this.hold = false;
    this.#held?.();
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    if (this.hold) this.#held = done;
    else done();
  }
}

function testFiles(held?: number): TestFile[] {
  return GRAPH_FILES.map((_, index) => new TestFile(index === held));
}

async function passed(stage: AsyncIterable<readonly PlannedGroup[]>): Promise<PlannedGroup[]> {
  const groups: PlannedGroup[] = [];
  for await (const planned of stage) groups.push(...planned);
  return groups;
}

test('edges and nodes are written as stored and as planned, and the groups pass on', async () => {
  const files = testFiles();
  const groups = await pipeline(
    Readable.from([GROUPS.slice(0, 3), GROUPS.slice(3)]),
    graphSink(files),
    passed,
  );

  assert.deepEqual(groups, GROUPS);
  assert.deepEqual(Object.fromEntries(GRAPH_FILES.map((name, i) => [name, files[i].text])), {
    'before_edges.csv': 'Source;Target\n5;2\n9;5\n',
    'before_nodes.csv':
      'Id;Rows;Root;Label\n1;3;true;"1"\n2;4;true;"2"\n5;2;false;"5"\n9;0;false;"9"\n',
    'after_edges.csv': 'Source;Target\n2;1\n9;5\n',
    'after_nodes.csv':
      'Id;Rows;Root;Label\n1;3;true;"1"\n2;1;false;"2"\n5;6;true;"5"\n9;0;false;"9"\n',
  });
  assert.ok(files.every((file) => file.writableFinished));
});

test('a room without groups leaves the headers', async () => {
  const files = testFiles();
  await pipeline(Readable.from([]), graphSink(files), passed);
  assert.deepEqual(
    files.map(({ text }) => text),
    ['Source;Target\n', 'Id;Rows;Root;Label\n', 'Source;Target\n', 'Id;Rows;Root;Label\n'],
  );
});

for (const [index, name] of GRAPH_FILES.entries()) {
  test(`a slow ${name} holds the groups back, and gets all of them`, async () => {
    const files = testFiles(index);
    const batches = 200;
    let taken = 0;
    const source = Readable.from(
      (function* () {
        for (; taken < batches; taken++) {
          // Each batch is larger than what a file holds back.
          yield Array.from({ length: 100 }, (_, i) => group(taken * 100 + i + 2, [1, 1], [1, 1]));
        }
      })(),
    );
    const all = pipeline(source, graphSink(files), passed);
    while (!files[index].isHeld) await setImmediate();
    for (let turn = 0; turn < 1000; turn++) await setImmediate();
    assert.ok(taken < batches / 2, `${taken} of ${batches} batches were taken`);

    files[index].release();
    assert.equal((await all).length, batches * 100);
    assert.equal(files[index].text.split('\n').length, batches * 100 + 2);
  });

  test(`an error of ${name} ends the pipeline with it`, async () => {
    const broken = new Error('no space left');
    for (const when of ['before', 'held', 'last'] as const) {
      const files = testFiles(when === 'before' ? undefined : index);
      const stage = graphSink(files);
      if (when === 'before') files[index].destroy(broken);
      const endless = (function* () {
        for (;;) yield GROUPS;
      })();
      const all = pipeline(Readable.from(when === 'last' ? [GROUPS] : endless), stage, passed);
      if (when !== 'before') {
        while (!(when === 'last' ? files[index].writableEnded : files[index].isHeld)) {
          await setImmediate();
        }
        files[index].destroy(broken);
      }
      await assert.rejects(all, broken, when);
    }
  });
}
