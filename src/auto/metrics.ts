import type { AutoSummary } from './auto-settings.js';

/** Figures that add up over runs, each with what it counts. */
const TOTALS = {
  runs_total: ['Runs that ended, well or not', () => 1],
  rows_deleted_total: ['Rows deleted from state_groups_state', (run) => run.rowsDeleted],
  rows_inserted_total: ['Rows inserted into state_groups_state', (run) => run.rowsInserted],
  rows_saved_total: [
    'Rows by which state_groups_state became smaller',
    (run) => Math.max(0, run.rowsDeleted - run.rowsInserted),
  ],
  state_groups_rewritten_total: ['State groups rewritten', (run) => run.groupsRewritten],
  state_groups_skipped_total: [
    'State groups left as they are because they had changed meanwhile',
    (run) => run.groupsSkipped,
  ],
  rooms_failed_total: ['Rooms set aside because they failed', (run) => run.failed.length],
} as const satisfies Record<string, readonly [string, (run: AutoSummary) => number]>;

const PREFIX = 'synapse_compress_state_';

/**
 * What a run did, in the Prometheus text format, for the textfile collector of the node exporter
 * (https://prometheus.io/docs/instrumenting/exposition_formats/).
 *
 * @param before the file as the last run left it, whose totals go on; empty if there is none
 */
export function metricsText(
  run: AutoSummary,
  { exitCode, ended, before }: { exitCode: number; ended: Date; before: string },
): string {
  const lines: string[] = [];
  const add = (name: string, type: string, help: string, value: number): void => {
    lines.push(`# HELP ${PREFIX}${name} ${help}.`, `# TYPE ${PREFIX}${name} ${type}`);
    lines.push(`${PREFIX}${name} ${value}`);
  };
  for (const [name, [help, valueOf]] of Object.entries(TOTALS)) {
    const [, old] = new RegExp(`^${PREFIX}${name} (\\d+)$`, 'm').exec(before) ?? [];
    add(name, 'counter', help, Number(old ?? 0) + valueOf(run));
  }
  const seconds = Math.round(ended.getTime() / 1000);
  add('last_run_timestamp_seconds', 'gauge', 'When the last run ended', seconds);
  const duration = Math.round(run.seconds);
  add('last_run_duration_seconds', 'gauge', 'How long the last run took', duration);
  add('last_run_exit_code', 'gauge', 'What the last run ended with', exitCode);
  return `${lines.join('\n')}\n`;
}
