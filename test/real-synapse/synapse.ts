import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { TestDatabase } from '../support/postgres.js';
import type { States } from '../support/states.js';

/** A current Synapse, and the last before 1.124, which has no `state_groups_pending_deletion`. */
export const VERSIONS = ['1.163.2', '1.123.0'] as const;
export type Version = (typeof VERSIONS)[number];

const here = fileURLToPath(new URL('.', import.meta.url));

/** The Python that Synapse is installed for. */
export function pythonOf(version: Version): string {
  return fileURLToPath(new URL(`../../.synapse/${version}/bin/python`, import.meta.url));
}

const isInstalled = VERSIONS.every((version) =>
  existsSync(fileURLToPath(new URL(`../../.synapse/${version}/requirements.txt`, import.meta.url))),
);

/** Options of a test that needs Synapse. */
export const withSynapse = {
  skip: isInstalled
    ? false
    : 'Synapse is not installed in .synapse/; "npm run test:synapse" does that',
};

function databaseSettings({ address, name }: TestDatabase): object {
  const { host, port, user, password } = address;
  const args = { host, port, user, password, dbname: name, cp_min: 1, cp_max: 5 };
  return { name: 'psycopg2', args };
}

/** What homeserver.yaml says of the databases; the second, where it is another, holds the state groups. */
export function databasesSettings(main: TestDatabase, state = main): object {
  if (state === main) return { database: databaseSettings(main) };
  return {
    databases: {
      main: { ...databaseSettings(main), data_stores: ['main'] },
      state: { ...databaseSettings(state), data_stores: ['state'] },
    },
  };
}

interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: string;
  readonly stopped?: string;
}

/** Synapse's own code on a database, in a process of its own; driver.py is the other end. */
export class Synapse {
  readonly #driver: ChildProcessByStdio<Writable, Readable, null>;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #requests = 0;

  private constructor(version: Version, databases: object) {
    this.#driver = spawn(pythonOf(version), [`${here}driver.py`, JSON.stringify(databases)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
  }

  /** Puts Synapse's schema on the empty database, or on both. */
  static async on(
    t: TestContext,
    version: Version,
    main: TestDatabase,
    state?: TestDatabase,
  ): Promise<Synapse> {
    const synapse = new Synapse(version, databasesSettings(main, state));
    t.after(() => synapse.#driver.kill());
    const ready = synapse.#answer(0);
    createInterface(synapse.#driver.stdout)
      .on('line', (line) => {
        const answer = JSON.parse(line) as Answer;
        synapse.#waiting.get(answer.id)?.(answer);
      })
      .on('close', () => {
        for (const [id, answer] of synapse.#waiting) answer({ id, error: 'the driver has ended' });
      });
    await ready;
    return synapse;
  }

  /** What Synapse reads as the state of each state group, as `readAllStates` gives it. */
  async states(): Promise<States> {
    return new Map((await this.#ask({ do: 'states' })) as [number, string][]);
  }

  /** Begins to delete unreferenced state groups of a room, or without `groups` the room's state. */
  purge({ stopBefore = 0, ...what }: PurgeSettings): Purge {
    const id = this.#requests + 1;
    let stop: () => void;
    const stopped = new Promise<void>((resolve) => (stop = resolve));
    const ended = this.#ask({ do: 'purge', ...what, stop_before: stopBefore }, () =>
      stop(),
    ) as Promise<PurgeResult>;
    return { stopped, ended, go: () => this.#send({ go: id }) };
  }

  async #ask(request: object, onStop?: () => void): Promise<unknown> {
    const id = ++this.#requests;
    this.#send({ id, ...request });
    const { result, error } = await this.#answer(id, onStop);
    if (error !== undefined) throw new Error(`Synapse: ${error}`);
    return result;
  }

  #answer(id: number, onStop?: () => void): Promise<Answer> {
    return new Promise((resolve) => {
      this.#waiting.set(id, (answer) => {
        if (answer.stopped !== undefined) return onStop?.();
        this.#waiting.delete(id);
        resolve(answer);
      });
    });
  }

  #send(line: object): void {
    this.#driver.stdin.write(`${JSON.stringify(line)}\n`);
  }
}

export interface PurgeSettings {
  readonly room: string;
  readonly groups?: readonly number[];
  /** Stops before this statement of the purge, counted from one; its COMMIT is the last. */
  readonly stopBefore?: number;
}

export interface PurgeResult {
  /** How often Synapse ran the transaction. */
  readonly attempts: number;
  /** The statements of all attempts. */
  readonly statements: readonly string[];
  /** It met others at each attempt, and Synapse would log an error and, for some purges, try again in a minute. */
  readonly gaveUp: boolean;
}

export interface Purge {
  /** When it waits before the statement that it was to stop before. */
  readonly stopped: Promise<void>;
  readonly ended: Promise<PurgeResult>;
  /** Lets it go on. */
  readonly go: () => void;
}
