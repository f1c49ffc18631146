import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { PassThrough } from 'node:stream';
import { finished } from 'node:stream/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import type pg from 'pg';
import { InputError } from '../src/errors.js';
import { CopyOut } from '../src/sources/postgres/copy-out.js';
import { IdReader, idOf } from '../src/sources/postgres/id-reader.js';

/** Cuts bytes at the given offsets, wherever those are. */
function cut(bytes: Buffer, offsets: readonly number[]): Buffer[] {
  const edges = [0, ...offsets.map((offset) => offset % (bytes.length + 1)), bytes.length];
  edges.sort((a, b) => a - b);
  return edges.slice(1).map((end, i) => Buffer.from(bytes.subarray(edges[i], end)));
}

function message(kind: string, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(5 + body.length, kind, 'latin1');
  bytes.writeUInt32BE(4 + body.length, 1);
  bytes.set(body, 5);
  return bytes;
}

test('rows come out whole however the protocol is cut, and what follows them goes back to pg', () => {
  const body = fc.uint8Array({ maxLength: 30 });
  const offsets = fc.array(fc.nat(2000), { maxLength: 40 });
  // H begins a COPY; a notice, a parameter's new value or a notification may come at any time.
  const others = fc.record({ kind: fc.constantFrom('H', 'N', 'S', 'A'), body });
  const rows = fc.record({ kind: fc.constant('d'), body });
  const messages = fc.array(fc.oneof({ weight: 4, arbitrary: rows }, others), { maxLength: 30 });
  fc.assert(
    fc.property(messages, fc.constantFrom('c', 'E'), body, offsets, (sent, end, rest, at) => {
      const tail = Buffer.concat([message(end, rest), message('Z', rest)]);
      const bytes = Buffer.concat([...sent.map((each) => message(each.kind, each.body)), tail]);
      const expected = Buffer.concat(
        sent.filter(({ kind }) => kind === 'd').map((row) => row.body),
      );

      const received: Buffer[] = [];
      const returned: Buffer[] = [];
      const socket = Object.assign(new EventEmitter(), { resume: () => socket });
      socket.on('data', (chunk: Buffer) => returned.push(chunk));
      const copy = new CopyOut('COPY', (chunk) => received.push(chunk));
      copy.submit({ stream: socket, query: () => {} } as unknown as pg.Connection);
      for (const chunk of cut(bytes, at)) socket.emit('data', chunk);

      assert.deepEqual(Buffer.concat(received), expected);
      assert.deepEqual(Buffer.concat(returned), tail);
    }),
  );
});

test('a socket that was paused for the last rows goes on when they are done', async () => {
  const socket = new PassThrough();
  const parsed: Buffer[] = [];
  socket.on('data', (bytes: Buffer) => parsed.push(bytes));
  const copy = new CopyOut('COPY', () => copy.pause());
  copy.submit({ stream: socket, query: () => {} } as unknown as pg.Connection);
  const done = message('c', Buffer.alloc(0));
  socket.write(Buffer.concat([message('d', Buffer.from('row')), done]));
  socket.end('what follows');
  await finished(socket);
  assert.deepEqual(Buffer.concat(parsed), Buffer.concat([done, Buffer.from('what follows')]));
});

test('a COPY that fails gives the socket back and rejects', async () => {
  const socket = new PassThrough();
  const parser = (): void => {};
  socket.on('data', parser);
  const copy = new CopyOut('COPY', () => {});
  copy.submit({ stream: socket, query: () => {} } as unknown as pg.Connection);
  assert.notDeepEqual(socket.listeners('data'), [parser]);
  copy.handleError(new Error('gone'));
  await assert.rejects(copy.finished, /gone/);
  assert.deepEqual(socket.listeners('data'), [parser]);
});

test('ids are read however their text is cut', () => {
  const id = fc.oneof(fc.nat(), fc.maxSafeNat(), fc.constant(Number.MAX_SAFE_INTEGER));
  const pairs = fc.array(fc.tuple(id, id), { maxLength: 20 });
  fc.assert(
    fc.property(pairs, fc.array(fc.nat(1000), { maxLength: 20 }), (lines, offsets) => {
      const text = Buffer.from(lines.map((line) => `${line.join('\t')}\n`).join(''));
      const read: number[] = [];
      const reader = new IdReader((value) => read.push(value));
      for (const chunk of cut(text, offsets)) reader.write(chunk);
      assert.deepEqual(read, lines.flat());
    }),
  );
});

test('what is no id that a number can hold is named, or handed over in its place', () => {
  const large = ['9007199254740992', '9007199254740993', '9223372036854775807'];
  for (const text of [...large, '-1', '\\N', '4x', 'Infinity']) {
    const isRight = (error: unknown): boolean =>
      error instanceof InputError && error.message.includes(`a state group ${text}. Ids`);
    const bytes = Buffer.from(`1\n${text}\t2\n`);
    assert.throws(() => new IdReader(() => {}).write(bytes), isRight);
    assert.throws(() => idOf(text), isRight);
    const read: unknown[] = [];
    const reader = new IdReader(
      (id) => read.push(id),
      (error) => read.push(isRight(error)),
    );
    reader.write(bytes.subarray(0, 3));
    reader.write(bytes.subarray(3));
    assert.deepEqual(read, [1, true, 2]);
  }
});
