import { cpus, loadavg, totalmem } from 'node:os';

/** The lines that every benchmark opens with: when, where, and how busy the machine was. */
export function describeMachine(postgresVersion?: string): string {
  const processors = cpus();
  return [
    `Date      ${new Date().toISOString().slice(0, 16)}Z`,
    `Machine   ${processors.length} × ${processors[0]?.model.trim() ?? 'unknown processor'}, ` +
      `${Math.round(totalmem() / 1e9)} GB; load ${loadavg()[0].toFixed(1)} before the start`,
    `Versions  Node ${process.versions.node}` +
      (postgresVersion === undefined ? '' : `, Postgres ${postgresVersion}`),
    '',
  ].join('\n');
}
