import type { Options } from 'yargs';
import { DEFAULT_BATCH } from '../sinks/copy.js';
import { APPLY_OPTIONS } from './apply-options.js';

const SOURCE = 'Where the room is read:';
const GROUPS = 'Which groups, and how:';
const OUTPUT = 'What comes out:';
const APPLYING = 'Applying it at once:';
const RESOURCES = 'What it may take:';

/** By long name. What takes a value takes it as a string, whose form is checked below. */
export const OPTIONS = {
  'postgres-url': {
    alias: 'p',
    nargs: 1,
    group: SOURCE,
    describe:
      'The database, as a URL or as libpq keywords ("host=… dbname=…"). ' +
      'May be left out when PGHOST or PGDATABASE says it.',
  },
  input: {
    alias: 'i',
    nargs: 1,
    group: SOURCE,
    describe:
      'Instead of a database: a dump by pg_dump, or files or a folder of exported tables, or ' +
      '- for standard input. May be given several times, also for the parts of one table, in their order.',
  },
  table: {
    nargs: 1,
    group: SOURCE,
    describe: 'As -i, for a file that does not tell which table it holds: NAME=PATH',
  },
  'room-id': {
    alias: 'r',
    nargs: 1,
    group: SOURCE,
    describe: "The room, in single quotes: '!abc:example.com'",
  },
  'all-rooms': {
    type: 'boolean',
    group: SOURCE,
    describe: 'Instead of -r: every room, each by itself, into one output',
  },
  'min-state-group': {
    alias: 'b',
    nargs: 1,
    group: GROUPS,
    describe: 'Only state groups above this one',
  },
  'groups-to-compress': {
    alias: 'n',
    nargs: 1,
    group: GROUPS,
    describe: 'Only this many state groups, the lowest above -b',
  },
  'max-state-group': {
    alias: 's',
    nargs: 1,
    group: GROUPS,
    describe: 'Only state groups up to this one, itself included',
  },
  strategy: {
    nargs: 1,
    group: GROUPS,
    describe: 'adaptive, or levels as the old tool has them',
    defaultDescription: 'adaptive; levels with -l',
  },
  'level-sizes': {
    alias: 'l',
    nargs: 1,
    group: GROUPS,
    describe: 'With levels: their sizes, lowest first',
    defaultDescription: '100,50,25',
  },
  'max-hops': {
    nargs: 1,
    group: GROUPS,
    describe: 'With adaptive: the longest chain of state groups',
    defaultDescription: '100',
  },
  headroom: {
    nargs: 1,
    group: GROUPS,
    describe: "With adaptive: hops to leave under the newest groups for Synapse's next ones",
    defaultDescription: 'half of --max-hops',
  },
  'rebase-deep': {
    type: 'boolean',
    group: GROUPS,
    describe: 'With adaptive: shorten chains that are longer already, even if it costs rows',
  },
  'no-verify': {
    alias: 'N',
    type: 'boolean',
    group: GROUPS,
    describe: 'Do not compare the new state of each group with the stored one',
  },
  'output-file': {
    alias: 'o',
    nargs: 1,
    group: OUTPUT,
    describe:
      'File for the changes, or - for standard output. Packed if its name ends in .gz or .zst',
  },
  format: {
    nargs: 1,
    group: OUTPUT,
    describe:
      'sql; copy, which is applied faster and beside a running Synapse; tables, a folder of new tables and a script that swaps them in; or jsonl, a JSON ' +
      'object a change',
    defaultDescription: 'sql',
  },
  batch: {
    nargs: 1,
    group: OUTPUT,
    describe: 'With --format copy: state groups of one transaction',
    defaultDescription: String(DEFAULT_BATCH),
  },
  transactions: {
    alias: 't',
    type: 'boolean',
    group: OUTPUT,
    describe: 'Wrap each group in a transaction that is safe beside a running Synapse',
  },
  'min-saved-rows': {
    alias: 'm',
    nargs: 1,
    group: OUTPUT,
    describe: 'Write nothing unless at least this many rows are saved',
  },
  unbuffered: {
    type: 'boolean',
    group: OUTPUT,
    describe: 'With -o -: write each change at once, not when all is verified',
  },
  'stats-file': {
    nargs: 1,
    group: OUTPUT,
    describe: 'File for every figure as a JSON object, or - for standard output',
  },
  graphs: {
    alias: 'g',
    type: 'boolean',
    group: OUTPUT,
    describe: 'Write before_edges.csv, before_nodes.csv, after_edges.csv and after_nodes.csv here',
  },
  'commit-changes': {
    alias: 'c',
    type: 'boolean',
    group: APPLYING,
    describe:
      'With -p: apply the changes, safely beside a running Synapse, instead of writing them',
  },
  pace: { ...APPLY_OPTIONS.pace, group: APPLYING },
  vacuum: { ...APPLY_OPTIONS.vacuum, group: APPLYING },
  memory: {
    nargs: 1,
    group: RESOURCES,
    default: '64',
    describe: 'Megabytes that sorting the files of -i may take',
  },
  tmpdir: {
    nargs: 1,
    group: RESOURCES,
    describe: 'Folder for temporary files',
    defaultDescription: "the system's",
  },
} as const satisfies Record<string, Options>;

export type OptionName = keyof typeof OPTIONS;
