import { TABLES } from '../apply/table-space.js';
import type { Format } from '../sinks/change-sink.js';
import { shellQuoted } from '../sinks/shell-quoted.js';
import { packingOfName } from '../sinks/packed-output.js';
import { readableSize } from './size.js';
import type { Statistics } from './statistics.js';

export interface NextStepsSettings {
  /** Where the changes were put; undefined when none were asked for. */
  readonly output: { readonly name: string; readonly isFile: boolean } | undefined;
  readonly format: Format;
  readonly transactions: boolean;
}

const CONTENTS: Record<Format, string> = {
  sql: 'SQL',
  copy: 'SQL',
  tables: 'COPY text',
  jsonl: 'JSON lines',
};

/** Where the changes are, how they are applied, and what gives the disk space back. */
export function nextSteps(
  statistics: Pick<Statistics, 'outcome' | 'outputBytes'>,
  { output, format, transactions }: NextStepsSettings,
): string[] {
  if (statistics.outcome === 'no-output-asked') {
    return ['To have the changes as SQL, name a file with -o.'];
  }
  if (output === undefined) return [];
  const { name, isFile } = output;
  if (statistics.outcome !== 'written') {
    return format === 'tables' ? [`No new tables were made: there is no ${name}.`] : [];
  }
  const changes = `The changes (${readableSize(statistics.outputBytes)} of ${CONTENTS[format]})`;
  if (format === 'tables') {
    return [
      `The new tables (${readableSize(statistics.outputBytes)}) are in ${name}. Put them in the place of the old ones with`,
      `  cd ${shellQuoted(name)} && psql -X -f swap.sql DATABASE`,
      'while Synapse is stopped. The old tables are given back to the system then, and no VACUUM is needed.',
    ];
  }
  const isGuarded = transactions || format !== 'sql';
  const apply = `  synapse_compress_state apply ${shellQuoted(name)} -p DSN`;
  const psql = `  ${psqlCommand(name, isGuarded ? '' : ' -1 -v ON_ERROR_STOP=1')}`;
  const commands = !isGuarded ? [psql] : format === 'jsonl' ? [apply] : [apply, 'or', psql];
  return [
    ...(!isFile
      ? [`${changes} went to ${name}.`]
      : [
          `${changes} are in ${name}. Apply them to your database with`,
          ...commands,
          isGuarded
            ? 'Synapse may run meanwhile: a state group that has changed since is skipped.'
            : 'while Synapse is stopped. To apply changes beside a running Synapse, make them with -t.',
        ]),
    `Afterwards VACUUM ANALYZE ${TABLES}; makes the space of the deleted rows usable again.`,
  ];
}

function psqlCommand(name: string, options: string): string {
  const packing = packingOfName(name);
  if (packing === undefined) return `psql${options} -f ${shellQuoted(name)} DATABASE`;
  const unpack = packing === 'gzip' ? 'gunzip -c' : 'zstd -dc';
  return `${unpack} ${shellQuoted(name)} | psql${options} DATABASE`;
}
