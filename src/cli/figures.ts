import { openFileOutput } from '../sinks/file-output.js';
import { endWith } from '../sinks/output.js';
import { openStreamedOutput } from '../sinks/streamed-output.js';
import type { OpenOutput, SpoolSettings } from '../sinks/output.js';

/** Opens what `--stats-file` names; undefined without it. */
export async function openFigures(
  statsFile: string | undefined,
  spool: SpoolSettings,
): Promise<OpenOutput | undefined> {
  if (statsFile === undefined) return undefined;
  const output =
    statsFile === '-'
      ? openStreamedOutput(process.stdout, 'standard output')
      : await openFileOutput(statsFile, spool);
  // Each write's callback has the error already.
  output.stream.on('error', () => {});
  return output;
}

/** Writes all figures as a line of JSON. */
export async function writeFigures(figures: object, output: OpenOutput): Promise<void> {
  await endWith(output, `${JSON.stringify(figures)}\n`);
  await output.keep();
}
