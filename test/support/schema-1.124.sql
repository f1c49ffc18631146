-- What Synapse 1.124 added, for its loop that deletes unreferenced state groups.

CREATE TABLE state_groups_pending_deletion (
  sequence_number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  state_group bigint NOT NULL,
  insertion_ts bigint NOT NULL
);
CREATE UNIQUE INDEX state_groups_pending_deletion_state_group ON state_groups_pending_deletion (state_group);
CREATE INDEX state_groups_pending_deletion_insertion_ts ON state_groups_pending_deletion (insertion_ts);

CREATE TABLE state_groups_persisting (
  state_group bigint NOT NULL,
  instance_name text NOT NULL,
  PRIMARY KEY (state_group, instance_name)
);
CREATE INDEX state_groups_persisting_instance_name ON state_groups_persisting (instance_name);
