-- Keys lie in generations: one is open and small, the others are frozen and never change.
--
-- A generation is a table `event_keys_g…` with a primary key (customer_id, key_hash) of its own. That a key is in one
-- generation only, the flows see to (docs/decisions/0024). What there is becomes generation 0: it is read once to see
-- that it is, and not written.

ALTER TABLE event_keys ADD COLUMN generation int NOT NULL DEFAULT 0;
ALTER TABLE event_keys ALTER COLUMN generation DROP DEFAULT;
ALTER TABLE event_keys RENAME TO event_keys_g0;
ALTER TABLE event_keys_g0 RENAME CONSTRAINT event_keys_pkey TO event_keys_g0_pkey;

CREATE TABLE event_keys (LIKE event_keys_g0) PARTITION BY LIST (generation);
ALTER TABLE event_keys ATTACH PARTITION event_keys_g0 FOR VALUES IN (0);

CREATE TABLE key_generations (
    number        int PRIMARY KEY,
    first_batch   bigint NOT NULL,      -- keys of this batch and later ones are not in an older generation
    opened_at     timestamptz NOT NULL DEFAULT now(),
    frozen_at     timestamptz,          -- null: it is open, as exactly one is
    filter_bytes  bigint,               -- null: its filter is yet to be built
    filter_digest bytea                 -- SHA-256 of it
);
CREATE UNIQUE INDEX key_generations_open ON key_generations ((true)) WHERE frozen_at IS NULL;
INSERT INTO key_generations (number, first_batch) VALUES (0, 0);

-- Which keys a frozen generation may hold; made anew from its keys when it is lost.
CREATE TABLE key_filters (
    generation int NOT NULL,
    part       int NOT NULL,
    bits       bytea NOT NULL,
    PRIMARY KEY (generation, part)
);
ALTER TABLE key_filters ALTER COLUMN bits SET STORAGE EXTERNAL;   -- bits that look like noise do not compress
