import { createReadStream, readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createGunzip } from 'node:zlib';
import type { TestDatabase } from './postgres.js';

const fixtures = fileURLToPath(new URL('../../fixtures/', import.meta.url));

/** The largest room of fixtures/synapse, of 5,394 state groups. */
export const LARGE_ROOM = '!ORrIj_ngefPxK_xykJweOcBeKDOqcbRfKolM2O2VoCY';

export const STATE_TABLES = ['state_groups', 'state_group_edges', 'state_groups_state'] as const;

/** The path of something in fixtures/. */
export function fixture(...path: string[]): string {
  return join(fixtures, ...path);
}

/** The unpacked bytes of a gzipped fixture. */
export function readFixture(...path: string[]): Readable {
  return createReadStream(fixture(...path)).pipe(createGunzip());
}

/** The cases of fixtures/golden that are runs of one room. */
export function goldenCases(): string[] {
  return readdirSync(fixture('golden')).filter((name) => name !== 'auto');
}

/** Loads a folder of fixtures/ that holds the three tables, and brings the planner's statistics up to date. */
export async function loadTables(db: TestDatabase, folder: string): Promise<void> {
  for (const table of STATE_TABLES) {
    await db.copyIn(table, readFixture(folder, `${table}.copy.gz`));
  }
  await db.query('ANALYZE');
}

/** What Synapse's own code read for a state group of fixtures/synapse. */
export interface SynapseState {
  readonly group: number;
  /** The number of groups in its chain, itself included. */
  readonly hops: number;
  /** The digest of its full state, as `readAllStates` makes it. */
  readonly sha256: string;
}

export async function synapseStates(): Promise<SynapseState[]> {
  const states: SynapseState[] = [];
  for await (const line of createInterface(readFixture('synapse/states.jsonl.gz'))) {
    states.push(JSON.parse(line) as SynapseState);
  }
  return states;
}

/** An empty folder that goes when the test ends. */
export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'synapse-compress-state-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
