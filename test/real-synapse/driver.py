"""Runs Synapse's own, unmodified code on a Postgres database.

    driver.py '{"database": {…}}'

The argument is what a homeserver.yaml says of its databases. Synapse puts its schema on them. Then each
line of stdin is a request, an object with an `id`; each line of stdout is the answer of that id:
`result`, or `error`, or `stopped` (the statement before which a purge waits for `{"go": id}`).
"""

import hashlib
import inspect
import json
import logging
import sys
import threading

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from synapse._scripts.update_synapse_database import MockHomeserver
from synapse.config.homeserver import HomeServerConfig
from synapse.storage.database import LoggingDatabaseConnection

logging.disable(logging.WARNING)


def answer(request_id, **what):
    line = json.dumps({"id": request_id, **what}, ensure_ascii=False)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Gate:
    """Stops a transaction once, before its n-th statement; commit is the last."""

    def __init__(self, request_id, stop_before):
        self.request_id = request_id
        self.stop_before = stop_before
        self.statements = []
        self.opened = threading.Event()

    def pass_through(self, sql):
        self.statements.append(sql)
        if len(self.statements) == self.stop_before:
            answer(self.request_id, stopped=sql)
            self.opened.wait()


gates = {}
here = threading.local()


class GatedCursor(psycopg2.extensions.cursor):
    def execute(self, query, args=None):
        text = query.decode() if isinstance(query, bytes) else query
        if getattr(here, "gate", None) is not None:
            here.gate.pass_through(" ".join(text.split())[:120])
        super().execute(query, args)


class GatedConnection(psycopg2.extensions.connection):
    def cursor(self, *args, **kwargs):
        return super().cursor(*args, cursor_factory=GatedCursor, **kwargs)

    def commit(self):
        if getattr(here, "gate", None) is not None:
            here.gate.pass_through("COMMIT")
        super().commit()


class Synapse:
    def __init__(self, databases):
        parsed = HomeServerConfig()
        parsed.parse_config_dict(
            {
                "server_name": "test.local",
                "report_stats": False,
                "signing_key": "ed25519 a_test QX1yrwOMpy8RkUjVbkUQLJ8DwNUeTWPhKCZd4CAJEU4",
                "macaroon_secret_key": "a",
                "form_secret": "b",
                "listeners": [],
                # Else it makes a folder where it stands.
                "enable_media_repo": False,
                **databases,
            },
            "",
            "",
        )
        self.config = next(d for d in parsed.database.databases if "state" in d.databases)
        homeserver = MockHomeserver(parsed)
        homeserver.setup()
        self.store = homeserver.get_datastores().state
        self.pool = self.store.db_pool

    def connect(self):
        args = {k: v for k, v in self.config.config["args"].items() if not k.startswith("cp_")}
        names = inspect.signature(LoggingDatabaseConnection).parameters
        connection = LoggingDatabaseConnection(
            conn=psycopg2.connect(connection_factory=GatedConnection, **args),
            engine=self.pool.engine,
            default_txn_name="test",
            **({"server_name": "test.local"} if "server_name" in names else {}),
        )
        self.pool.engine.on_new_connection(connection)
        return connection

    def states(self):
        """The digest of each state group's full state: [id, sha256]."""
        connection = self.connect()
        with connection.cursor() as txn:
            txn.execute("SELECT id FROM state_groups ORDER BY id")
            groups = [group for (group,) in txn]
            states = []
            for first in range(0, len(groups), 100):
                some = groups[first : first + 100]
                read = self.store._get_state_groups_from_groups_txn(txn, some)
                for group in some:
                    state = sorted([*key, event] for key, event in read[group].items())
                    text = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
                    states.append([group, hashlib.sha256(text.encode()).hexdigest()])
        connection.conn.close()
        return states

    def purge(self, request_id, room, groups=None, stop_before=0):
        """Deletes state groups of a room that nothing refers to, or all of the room.

        How often it was tried, and the statements of all tries.
        """
        gate = gates[request_id] = Gate(request_id, stop_before)
        connection = self.connect()
        attempts = 0
        if groups is None:
            purge, args = self.store._purge_room_state_txn, [room]
        else:
            purge, args = self.store._purge_unreferenced_state_groups, [room, self.marked(groups)]

        def run(txn):
            nonlocal attempts
            attempts += 1
            here.gate = gate
            return purge(txn, *args)

        gave_up = False
        try:
            self.pool.new_transaction(connection, "test", [], [], [], run)
        except (psycopg2.errors.SerializationFailure, psycopg2.errors.DeadlockDetected):
            gave_up = True
        finally:
            here.gate = None
            connection.conn.close()
        return {"attempts": attempts, "statements": gate.statements, "gaveUp": gave_up}

    def marked(self, groups):
        """Marks groups for deletion long ago; what a purge wants to be given, which Synapse 1.124 changed."""
        if not hasattr(self.store, "_state_deletion_store"):
            return set(groups)
        deletion = self.store._state_deletion_store
        connection = self.connect()
        with connection.cursor() as txn:
            deletion._mark_state_groups_as_pending_deletion_txn(txn, groups)
            txn.execute(
                "UPDATE state_groups_pending_deletion SET insertion_ts = 1 WHERE state_group = ANY(?)",
                (groups,),
            )
            txn.execute("SELECT state_group, sequence_number FROM state_groups_pending_deletion")
            sequence_numbers = {group: number for group, number in txn if group in groups}
        connection.conn.commit()
        connection.conn.close()
        return sequence_numbers

    def handle(self, request):
        request_id, what = request.pop("id"), request.pop("do")
        try:
            result = self.states() if what == "states" else self.purge(request_id, **request)
            answer(request_id, result=result)
        except Exception as error:
            answer(request_id, error=repr(error))


synapse = Synapse(json.loads(sys.argv[1]))
answer(0, result="ready")
for line in sys.stdin:
    asked = json.loads(line)
    if "go" in asked:
        gates[asked["go"]].opened.set()
    else:
        threading.Thread(target=synapse.handle, args=[asked], daemon=True).start()
