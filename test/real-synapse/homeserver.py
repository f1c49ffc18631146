"""Runs Synapse's homeserver, which deletes unreferenced state groups after a second, and writes a snapshot
after every ten groups, so that there is much to compress in little time.

    homeserver.py -c homeserver.yaml
"""

import synapse.storage.controllers.purge_events as purge_events
import synapse.storage.databases.state.store as state_store
from synapse.app.homeserver import main

# It is a hundred.
state_store.MAX_STATE_DELTA_HOPS = 10

try:
    from synapse.storage.databases.state.deletion import StateDeletionDataStore
    from synapse.util.duration import Duration

    # It is ten minutes, looked at each minute.
    StateDeletionDataStore.DELAY_BEFORE_DELETION_MS = 1000
    purge_events.Duration = lambda minutes: Duration(seconds=minutes)
except ImportError:
    # Before 1.124 they are deleted at once.
    pass

main()
