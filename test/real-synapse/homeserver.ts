import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHmac, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from '../support/fixtures.js';
import { freePort } from '../support/free-port.js';
import { pythonOf } from './synapse.js';
import type { Version } from './synapse.js';

const PROGRAM = fileURLToPath(new URL('homeserver.py', import.meta.url));
const SECRET = 'the test registers by this';
const UNLIMITED = { per_second: 1e6, burst_count: 1e6 };

/** The body of an answer of the client-server API. */
export type Answer = Record<string, unknown>;

/** A user of a homeserver. */
export type Request = (
  method: string,
  path: string,
  body?: object,
) => Promise<{ readonly status: number; readonly body: Answer }>;

/** A Synapse that federates with nobody, over a test's database. */
export class Homeserver {
  readonly #python: string;
  readonly #folder: string;
  readonly #url: string;
  #process: ChildProcess | undefined;

  private constructor(python: string, folder: string, url: string) {
    this.#python = python;
    this.#folder = folder;
    this.#url = url;
  }

  /** @param databases what homeserver.yaml says of them; see `databasesSettings` */
  static async start(t: TestContext, version: Version, databases: object): Promise<Homeserver> {
    const folder = await temporaryFolder(t);
    const port = await freePort();
    // YAML is JSON and more.
    const write = (name: string, content: object) =>
      writeFileSync(join(folder, name), JSON.stringify(content));
    write('homeserver.yaml', {
      server_name: 'test.local',
      report_stats: false,
      pid_file: join(folder, 'pid'),
      signing_key: 'ed25519 a_test QX1yrwOMpy8RkUjVbkUQLJ8DwNUeTWPhKCZd4CAJEU4',
      macaroon_secret_key: 'a',
      form_secret: 'b',
      registration_shared_secret: SECRET,
      trusted_key_servers: [],
      media_store_path: join(folder, 'media'),
      log_config: join(folder, 'log.yaml'),
      listeners: [
        { port, type: 'http', bind_addresses: ['127.0.0.1'], resources: [{ names: ['client'] }] },
      ],
      presence: { enabled: false },
      rc_message: UNLIMITED,
      rc_registration: UNLIMITED,
      rc_joins: { local: UNLIMITED },
      rc_joins_per_room: UNLIMITED,
      rc_room_creation: UNLIMITED,
      ...databases,
    });
    write('log.yaml', {
      version: 1,
      formatters: { line: { format: '%(levelname)s %(name)s %(message)s' } },
      handlers: {
        file: { class: 'logging.FileHandler', formatter: 'line', filename: join(folder, 'log') },
      },
      root: { level: 'WARNING', handlers: ['file'] },
      disable_existing_loggers: false,
    });
    const homeserver = new Homeserver(pythonOf(version), folder, `http://127.0.0.1:${port}`);
    t.after(() => homeserver.stop());
    await homeserver.#start();
    return homeserver;
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.#start();
  }

  async #start(): Promise<void> {
    const config = join(this.#folder, 'homeserver.yaml');
    this.#process = spawn(this.#python, [PROGRAM, '-c', config], {
      cwd: this.#folder,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    this.#process.stderr!.on('data', (text: Buffer) => (said += text.toString()));
    for (;;) {
      if (this.#process.exitCode !== null) throw new Error(`Synapse does not start: ${said}`);
      const answer = await fetch(`${this.#url}/health`).catch(() => undefined);
      if (answer?.ok === true) return;
      await setTimeout(100);
    }
  }

  async stop(): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    if (process === undefined || process.exitCode !== null) return;
    const exited = once(process, 'exit');
    process.kill();
    await exited;
  }

  /** What it has logged at WARNING and above, a message with its traceback each. */
  log(): readonly string[] {
    return readFileSync(join(this.#folder, 'log'), 'utf8')
      .split(/\n(?=WARNING |ERROR |CRITICAL )/)
      .filter((message) => message !== '');
  }

  /** @returns what asks as this user, who is new */
  async register(name: string, { admin = false } = {}): Promise<Request> {
    const anonymous = this.#as('');
    const path = '/_synapse/admin/v1/register';
    const { nonce } = (await anonymous('GET', path)).body as { nonce: string };
    const password = randomUUID();
    const mac = createHmac('sha1', SECRET)
      .update([nonce, name, password, admin ? 'admin' : 'notadmin'].join('\0'))
      .digest('hex');
    const user = { nonce, username: name, password, admin, mac };
    const { body } = await anonymous('POST', path, user);
    return this.#as(body['access_token'] as string);
  }

  #as(token: string): Request {
    return async (method, path, body) => {
      const answer = await fetch(`${this.#url}${path}`, {
        method,
        headers: token === '' ? {} : { authorization: `Bearer ${token}` },
        ...(body && { body: JSON.stringify(body) }),
      });
      return { status: answer.status, body: (await answer.json()) as Answer };
    };
  }
}
