import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';

/** Where the test server listens. TCP asks for the password, the socket does not. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  readonly socketDirectory: string;
  readonly user: string;
  readonly password: string;
}

/** A server of our own, and the way to end it. */
interface Server {
  readonly address: ServerAddress;
  /** Stops the server, removes its folder, and resolves when that is done. */
  stop(): Promise<void>;
  /** Ends all sessions, stops the server and starts it again. */
  restart(): Promise<void>;
}

/** Tells the tests of one run where the server is that they share. */
export const ADDRESS_VARIABLE = 'TEST_POSTGRES_ADDRESS';

let ownServer: Promise<Server> | undefined;

/** The server of this test run; a test file that is run by itself starts its own, which ends with it. */
export async function testPostgres(): Promise<TestPostgres> {
  const shared = process.env[ADDRESS_VARIABLE];
  if (shared !== undefined) return new TestPostgres(JSON.parse(shared) as ServerAddress);
  ownServer ??= startServer();
  return new TestPostgres((await ownServer).address);
}

/** A database that goes when the test ends, with empty tables of Synapse's unless it is said. */
export async function testDatabase(
  t: TestContext,
  schema: Schema = 'synapse',
): Promise<TestDatabase> {
  const db = await (await testPostgres()).createDatabase({ schema });
  t.after(() => db.drop());
  return db;
}

/** Starts a server that lives until `stop()`, or until this process is gone. */
export async function startServer(): Promise<Server> {
  const program = fileURLToPath(new URL('postgres-server.ts', import.meta.url));
  const keeper = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), program], {
    stdio: ['pipe', 'pipe', 'inherit'],
    // A Ctrl-C is for us; the keeper notices when we are gone.
    detached: true,
  });
  const exited = once(keeper, 'exit');
  const lines = createInterface(keeper.stdout);
  const [address] = (await Promise.race([
    once(lines, 'line'),
    exited.then(([code]) => Promise.reject(new Error(`No Postgres for the tests (exit ${code}).`))),
  ])) as [string];

  // The server must not keep a finished test file from ending.
  keeper.unref();
  (keeper.stdin as Socket).unref();
  (keeper.stdout as Socket).unref();
  return {
    address: JSON.parse(address) as ServerAddress,
    async stop() {
      keeper.ref();
      keeper.stdin.end();
      await exited;
    },
    async restart() {
      (keeper.stdout as Socket).ref();
      const restarted = once(lines, 'line');
      keeper.stdin.write('\n');
      await restarted;
      (keeper.stdout as Socket).unref();
    },
  };
}

/** `none` is an empty database. */
export type Schema = 'synapse' | 'synapse-before-1.124' | 'none';

/** A running Postgres, in which every test makes the databases that it needs. */
export class TestPostgres {
  constructor(readonly address: ServerAddress) {}

  /** Makes a database (UTF8, collation C) that holds empty tables of Synapse's, or nothing. */
  async createDatabase({ schema }: { schema: Schema }): Promise<TestDatabase> {
    const name = `test_${randomUUID().replaceAll('-', '')}`;
    const template = schema === 'none' ? 'template0' : schema;
    await this.#administer(`CREATE DATABASE ${name} TEMPLATE "${template}"`);
    const client = this.#client(name);
    await client.connect();
    return new TestDatabase(this.address, name, client, () =>
      this.#administer(`DROP DATABASE ${name} WITH (FORCE)`),
    );
  }

  async #administer(sql: string): Promise<void> {
    const client = this.#client('postgres');
    await client.connect();
    try {
      await client.query(sql);
    } finally {
      await client.end();
    }
  }

  #client(database: string): pg.Client {
    const { socketDirectory, port, user } = this.address;
    return new pg.Client({ host: socketDirectory, port, user, database });
  }
}

/** One test's database, with a superuser's connection to it. */
export class TestDatabase {
  readonly #client: pg.Client;
  readonly #remove: () => Promise<void>;

  constructor(
    readonly address: ServerAddress,
    readonly name: string,
    client: pg.Client,
    remove: () => Promise<void>,
  ) {
    this.#client = client;
    this.#remove = remove;
  }

  /** What `-p` takes, password included. */
  get url(): string {
    const { host, port, user, password } = this.address;
    return `postgresql://${user}:${password}@${host}:${port}/${this.name}`;
  }

  async query<Row extends pg.QueryResultRow>(
    text: string,
    values: unknown[] = [],
  ): Promise<pg.QueryResult<Row>> {
    // Without values the text may hold several statements, as a file of SQL does.
    return values.length === 0
      ? this.#client.query<Row>(text)
      : this.#client.query<Row>(text, values);
  }

  /** Fills a table from a stream of COPY text. */
  async copyIn(table: string, text: Readable): Promise<void> {
    await pipeline(text, this.#client.query(copyFrom(`COPY ${table} FROM STDIN`)));
  }

  /** What a query gives by COPY, as text without options. The connection is busy until the stream has ended. */
  copyOut(query: string, options = ''): Readable {
    return this.#client.query(copyTo(`COPY (${query}) TO STDOUT ${options}`));
  }

  /** Closes the connection; the database stays. */
  async release(): Promise<void> {
    await this.#client.end();
  }

  /** Closes the connection and removes the database, even where others are still connected to it. */
  async drop(): Promise<void> {
    await this.#client.end();
    await this.#remove();
  }
}
