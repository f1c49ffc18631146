import { onOneLine } from './printable.js';
import type { StatusLine } from './status-line.js';

const FORMATS = ['text', 'json'] as const;

/** How the log of a run without anyone watching looks: lines to read, or a JSON object a line. */
export type LogFormat = (typeof FORMATS)[number];

export function isLogFormat(name: string): name is LogFormat {
  return FORMATS.some((format) => format === name);
}

type Log = (level: 'info' | 'warning' | 'error', message: string, fields?: object) => void;

/** A log on standard error. Lines have no time: journald and cron put their own. */
export function openLog(format: LogFormat, status: StatusLine): Log {
  if (format === 'text') {
    return (level, message) => {
      const line = onOneLine(message);
      status.say(level === 'info' ? line : `Warning: ${line}`);
    };
  }
  return (level, message, fields) =>
    status.say(JSON.stringify({ time: new Date().toISOString(), level, message, ...fields }));
}
