import { readableSize } from './size.js';
import type { Statistics } from './statistics.js';

export interface NextStepsSettings {
  /** Where the SQL was put; undefined when none was asked for. */
  readonly output: { readonly name: string; readonly isFile: boolean } | undefined;
  readonly transactions: boolean;
}

/** Where the changes are, how they are applied, and what gives the disk space back. */
export function nextSteps(
  statistics: Statistics,
  { output, transactions }: NextStepsSettings,
): string[] {
  if (statistics.outcome === 'no-output-asked') {
    return ['To have the changes as SQL, name a file with -o.'];
  }
  if (statistics.outcome !== 'written' || output === undefined) {
    return [];
  }
  const size = readableSize(statistics.outputBytes);
  const vacuum = 'VACUUM ANALYZE state_groups_state, state_group_edges;';
  return [
    ...(!output.isFile
      ? [`The changes (${size} of SQL) went to ${output.name}.`]
      : [
          `The changes (${size} of SQL) are in ${output.name}. Apply them to your database with`,
          `  psql${transactions ? '' : ' -1 -v ON_ERROR_STOP=1'} -f ${shellQuoted(output.name)} DATABASE`,
          transactions
            ? 'Synapse may run meanwhile: a state group that has changed since is skipped.'
            : 'while Synapse is stopped. To apply changes beside a running Synapse, make them with -t.',
        ]),
    `Afterwards ${vacuum} makes the space of the deleted rows usable again.`,
  ];
}

function shellQuoted(path: string): string {
  const safe = path.startsWith('-') ? `./${path}` : path;
  return /^[\w./:@%+=-]+$/.test(safe) ? safe : `'${safe.replaceAll("'", "'\\''")}'`;
}
