-- A key's place is a hash of its customer and its text together, so that the hash alone is the primary key; and of the
-- Idempotency-Key four bytes are kept. Where an old key lives follows from its row, so every key stays what it was; each is
-- written once, and no other statement runs meanwhile. Of events from before it is forgotten which header they came with:
-- a retry of theirs is told as the `duplicate` that it is, not as a replay.
ALTER TABLE event_keys
    ALTER COLUMN key_hash TYPE uuid
          USING encode(substr(sha256(uuid_send(customer_id) || key_hash), 1, 16), 'hex')::uuid,
    DROP COLUMN header_hash,
    ADD COLUMN header_mark int;         -- null: it came without that header

DO $$
DECLARE
    generation regclass;
    unique_by text := '(key_hash)';
BEGIN
    IF to_regclass('pg_dist_partition') IS NOT NULL THEN    -- Citus: a shard is chosen by the customer
        SELECT '(key_hash, customer_id)' INTO unique_by FROM pg_dist_partition WHERE logicalrelid = 'event_keys'::regclass;
        unique_by := coalesce(unique_by, '(key_hash)');
    END IF;
    FOR generation IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'event_keys'::regclass LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', generation, generation || '_pkey');
        EXECUTE format('ALTER TABLE %s ADD PRIMARY KEY %s', generation, unique_by);
    END LOOP;
END $$;

-- Filters know other hashes: they are built anew.
UPDATE key_generations SET filter_bytes = NULL, filter_digest = NULL;
DELETE FROM key_filters;
