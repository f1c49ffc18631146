import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Duplex, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as zlib from 'node:zlib';
import { OutputError } from '../errors.js';
import type { Packing } from '../sources/files/unpack.js';
import type { OpenOutput } from './output.js';
import { PIECE } from './output-writer.js';

/** So much of what zstd says goes into a message. */
const LONGEST_COMPLAINT = 1000;

/** How a file is to be packed, by the end of its name; undefined if it isn't. */
export function packingOfName(name: string): Packing | undefined {
  if (name.endsWith('.gz')) return 'gzip';
  return name.endsWith('.zst') ? 'zstd' : undefined;
}

/**
 * Packs what is written to `output` on its way.
 *
 * @throws OutputError if there is nothing here that packs so
 */
export async function packedOutput(output: OpenOutput, packing: Packing): Promise<OpenOutput> {
  const { packer, failure } =
    packing === 'gzip'
      ? inZlib(zlib.createGzip({ chunkSize: PIECE }))
      : 'createZstdCompress' in zlib
        ? inZlib((zlib as ZstdInZlib).createZstdCompress({ chunkSize: PIECE }))
        : await zstdProgram(output.name);
  const packed = pipeline(packer, output.stream).catch(async (error: unknown) => {
    throw error instanceof OutputError ? error : ((await failure()) ?? error);
  });
  const stream = new Writable({
    highWaterMark: PIECE,
    write: (chunk: Buffer, _encoding, done) => {
      // What goes wrong is told by the pipeline.
      packer.write(chunk, (error) => {
        if (error) packed.then(() => done(error), done);
        else done();
      });
    },
    final: (done) => {
      packer.end();
      packed.then(() => done(), done);
    },
    destroy: (error, done) => {
      packer.destroy();
      done(error);
    },
  });
  packed.catch((error: Error) => stream.destroy(error));
  return {
    name: output.name,
    isFile: output.isFile,
    stream,
    get bytes() {
      return output.bytes;
    },
    get sentBytes() {
      return output.sentBytes;
    },
    get isCutOff() {
      return output.isCutOff;
    },
    keep: () => output.keep(),
    discard() {
      stream.destroy();
      return output.discard();
    },
  };
}

/** Node.js has it since 22.15 and 23.8. */
interface ZstdInZlib {
  createZstdCompress(options: { chunkSize: number }): zlib.Gzip;
}

interface Packer {
  readonly packer: Duplex;
  /** How it failed, where it is no stream that can tell it; undefined if it did not. */
  readonly failure: () => Promise<OutputError | undefined>;
}

function inZlib(packer: Duplex): Packer {
  return { packer, failure: async () => undefined };
}

/** The program's input and output as one stream. */
async function zstdProgram(name: string): Promise<Packer> {
  const zstd = spawn('zstd', ['-qc']);
  try {
    await once(zstd, 'spawn');
  } catch (error) {
    throw new OutputError(
      `Can't write ${name}: Node.js ${process.versions.node} can't pack with zstd, and there is no program zstd. Install zstd, or Node.js 22.15 or later, or name a file that ends in .gz.`,
      { cause: error },
    );
  }
  let complaint = '';
  zstd.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(0, LONGEST_COMPLAINT);
  });
  const ended = once(zstd, 'close') as Promise<[number | null, string | null]>;
  const failure = async (): Promise<OutputError | undefined> => {
    const [code, signal] = await ended;
    if (code === 0) return undefined;
    const how = complaint.trim() || `it ended with ${signal ?? code}`;
    return new OutputError(`Can't write ${name}: zstd failed: ${how}.`);
  };
  const packer = Duplex.from({
    writable: zstd.stdin,
    readable: (async function* () {
      yield* zstd.stdout;
      const error = await failure();
      if (error !== undefined) throw error;
    })(),
  });
  packer.once('close', () => zstd.kill());
  return { packer, failure };
}
