-- The tables of Synapse's state database before 1.124, and event_to_state_groups of its main database.

CREATE SEQUENCE state_group_id_seq;

CREATE TABLE state_groups (
  id bigint PRIMARY KEY,
  room_id text NOT NULL,
  event_id text NOT NULL
);
CREATE INDEX state_groups_room_id_idx ON state_groups (room_id);

CREATE TABLE state_group_edges (
  state_group bigint NOT NULL,
  prev_state_group bigint NOT NULL
);
CREATE UNIQUE INDEX state_group_edges_unique_idx ON state_group_edges (state_group, prev_state_group);
CREATE INDEX state_group_edges_prev_idx ON state_group_edges (prev_state_group);

CREATE TABLE state_groups_state (
  state_group bigint NOT NULL,
  room_id text NOT NULL,
  type text NOT NULL,
  state_key text NOT NULL,
  event_id text NOT NULL
);
CREATE INDEX state_groups_state_type_idx ON state_groups_state (state_group, type, state_key);
ALTER TABLE state_groups_state ALTER COLUMN state_group SET (n_distinct = -0.02);

CREATE TABLE event_to_state_groups (
  event_id text NOT NULL UNIQUE,
  state_group bigint NOT NULL
);
CREATE INDEX event_to_state_groups_sg_index ON event_to_state_groups (state_group);
