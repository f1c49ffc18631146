import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { Random } from '../../bench/random.js';
import type { Answer, Homeserver, Request } from './homeserver.js';

const MEMBERS = 8;
/** Requests under way at a time. */
const CLIENTS = 4;

/** The state at an event, as the server gives it: the ids of its events. */
export type StateOfEvent = readonly string[];

interface Room {
  readonly id: string;
  /** Newest last. */
  readonly events: string[];
}

/** What people do in rooms: they send, join, leave; an administrator purges history and deletes rooms. */
export class Traffic {
  /** The state at some events, as the server gave it just after they were sent. */
  readonly states = new Map<string, { readonly room: string; readonly state: StateOfEvent }>();
  sent = 0;
  purges = 0;
  deletedRooms = 0;
  readonly rooms: Room[] = [];
  readonly #random = new Random(1);
  readonly #admin: Request;
  readonly #members: readonly Request[];

  private constructor(admin: Request, members: readonly Request[]) {
    this.#admin = admin;
    this.#members = members;
  }

  /** Registers the people, and makes `rooms` rooms, in which all are. */
  static async begin(homeserver: Homeserver, rooms: number): Promise<Traffic> {
    const admin = await homeserver.register('admin', { admin: true });
    const members: Request[] = [];
    for (let i = 0; i < MEMBERS; i++) members.push(await homeserver.register(`user${i}`));
    const traffic = new Traffic(admin, members);
    for (let i = 0; i < rooms; i++) traffic.rooms.push(await traffic.#createRoom());
    return traffic;
  }

  /** Goes on until the signal is aborted. */
  async goOn(signal: AbortSignal): Promise<void> {
    const talking = Array.from({ length: CLIENTS }, async () => {
      while (!signal.aborted) await this.#act();
    });
    const administrating = async () => {
      while (!signal.aborted) {
        await this.#purgeHistory();
        await this.#deleteRoom();
      }
    };
    await Promise.all([...talking, administrating()]);
  }

  /** The state at an event; undefined if its history has been purged. */
  async stateAt(room: string, event: string): Promise<StateOfEvent | undefined> {
    const path = `${roomPath(room)}/context/${encodeURIComponent(event)}?limit=0`;
    const { status, body } = await this.#admin('GET', path);
    if (status === 403 || status === 404) return undefined;
    assert.equal(status, 200, JSON.stringify(body));
    const events = body['state'] as { readonly event_id: string }[];
    return events.map(({ event_id: id }) => id).toSorted();
  }

  async #createRoom(): Promise<Room> {
    const body = await succeed(this.#admin, 'POST', '/_matrix/client/v3/createRoom', {
      preset: 'public_chat',
      power_level_content_override: { events_default: 0, state_default: 0 },
    });
    const room: Room = { id: body['room_id'] as string, events: [] };
    for (const member of this.#members) {
      await succeed(member, 'POST', `${roomPath(room.id)}/join`, {});
    }
    return room;
  }

  async #act(): Promise<void> {
    const room = this.rooms[this.#random.below(this.rooms.length)];
    const member = this.#members[this.#random.below(MEMBERS)];
    const path = roomPath(room.id);
    const chance = this.#random.next();
    if (chance < 0.1) {
      // Someone who has just left can't leave, and is let in again.
      await member('POST', `${path}/leave`, {});
      await succeed(member, 'POST', `${path}/join`, {});
      return;
    }
    const event =
      chance < 0.2
        ? await member('PUT', `${path}/send/m.room.message/${this.sent}`, {
            msgtype: 'm.text',
            body: 'hello',
          })
        : await member('PUT', `${path}/state/test/${this.#random.below(60)}`, { of: this.sent });
    this.sent++;
    // The member may have left meanwhile.
    if (event.status === 403) return;
    assert.equal(event.status, 200, JSON.stringify(event.body));
    const id = event.body['event_id'] as string;
    room.events.push(id);
    if (this.#random.chance(0.1)) {
      const state = await this.stateAt(room.id, id);
      if (state !== undefined) this.states.set(id, { room: room.id, state });
    }
  }

  async #purgeHistory(): Promise<void> {
    const room = this.rooms[this.#random.below(this.rooms.length)];
    const upTo = room.events.at(-40);
    await setTimeout(500);
    if (upTo === undefined) return;
    const path = '/_synapse/admin/v1/purge_history';
    const { purge_id: id } = await succeed(
      this.#admin,
      'POST',
      `${path}/${encodeURIComponent(room.id)}`,
      { delete_local_events: true, purge_up_to_event_id: upTo },
    );
    await this.#completed('/_synapse/admin/v1/purge_history_status', id as string);
    this.purges++;
  }

  async #deleteRoom(): Promise<void> {
    const { id } = await this.#createRoom();
    for (let i = 0; i < 10; i++) {
      await succeed(this.#members[0], 'PUT', `${roomPath(id)}/state/test/${i}`, { of: i });
    }
    const body = await succeed(
      this.#admin,
      'DELETE',
      `/_synapse/admin/v2/rooms/${encodeURIComponent(id)}`,
      { purge: true },
    );
    await this.#completed('/_synapse/admin/v2/rooms/delete_status', body['delete_id'] as string);
    this.deletedRooms++;
  }

  async #completed(path: string, id: string): Promise<void> {
    for (;;) {
      const answer = await succeed(this.#admin, 'GET', `${path}/${id}`);
      if (answer['status'] === 'complete') return;
      assert.notEqual(answer['status'], 'failed', JSON.stringify(answer));
      await setTimeout(100);
    }
  }
}

function roomPath(room: string): string {
  return `/_matrix/client/v3/rooms/${encodeURIComponent(room)}`;
}

async function succeed(
  request: Request,
  method: string,
  path: string,
  body?: object,
): Promise<Answer> {
  const answer = await request(method, path, body);
  assert.equal(answer.status, 200, `${method} ${path}: ${JSON.stringify(answer.body)}`);
  return answer.body;
}
