/** The tool that came before this one, as `npm run test:old-tool` installs it from PyPI. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const PYTHON = fileURLToPath(new URL('../../.old-tool/bin/python', import.meta.url));

export const HAS_OLD_TOOL = existsSync(PYTHON);

/** What is said where it is missing. */
export const NO_OLD_TOOL = 'the old tool is not installed: npm run test:old-tool';

/** Renames the keys with dollar signs of a database: its quoting breaks on some of them. */
export const WITHOUT_DOLLARS = `
  UPDATE state_groups_state SET type = replace(type, '$', '_'), state_key = replace(state_key, '$', '_')
    WHERE type || state_key LIKE '%$%'`;

/**
 * Its automatic compressor, which plans and applies at once. Its package for Python has no command.
 *
 * @param levels As its option `-l` has them.
 */
export function oldAutoCompressor(
  url: string,
  { chunkSize, chunks, levels }: { chunkSize: number; chunks: number; levels: string },
): { command: string; args: string[] } {
  const code = [
    'import sys, synapse_auto_compressor',
    'url, chunk_size, levels, chunks = sys.argv[1:]',
    'synapse_auto_compressor.compress_state_events_table(url, int(chunk_size), levels, int(chunks))',
  ];
  const values = [url, String(chunkSize), levels, String(chunks)];
  return { command: PYTHON, args: ['-c', code.join('\n'), ...values] };
}
