import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { openFilesSource } from '../../src/sources/files/files-source.js';
import type { FilesSourceSettings } from '../../src/sources/files/files-source.js';

/** Headers, rows and warnings of a room in files, `!a:x` unless another is named. */
export async function readRoom(
  given: Partial<FilesSourceSettings> & Pick<FilesSourceSettings, 'tmpdir'>,
) {
  const source = await openFilesSource({
    inputs: [],
    stdin: Readable.from([]),
    room: '!a:x',
    range: {},
    memory: 2 ** 20,
    ...given,
  });
  try {
    const rows = (await buffer(source.rows())).toString();
    const { ids, prev } = source.groups;
    return { ids: [...ids], prev: [...prev], rows, warnings: source.warnings };
  } finally {
    await source.close();
  }
}
