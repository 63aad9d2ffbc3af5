-- Events are found by customer and hour (docs/decisions/0026): an index that keeps what is alike in lists, six bytes
-- an event, takes the place of the primary key, of which nothing made use but the order.

-- The hour of an instant in UTC, as rollups have it.
CREATE FUNCTION hour_of(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin(INTERVAL '1 hour', at, TIMESTAMPTZ '1970-01-01 00:00:00+00');

-- An event's id ends in the number of its bunch: some events of one customer and hour that came one after the other.
CREATE FUNCTION bunch_of(id uuid) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN get_byte(uuid_send(id), 14) * 256 + get_byte(uuid_send(id), 15);

CREATE INDEX events_by_hour ON events (customer_id, hour_of(occurred_at), bunch_of(id));
CREATE INDEX events_that_void ON events (voids) WHERE voids IS NOT NULL;
ALTER TABLE events DROP CONSTRAINT events_pkey;

-- Who replicates events by their changes, as Citus does to move a shard, knows a row by all it says.
ALTER TABLE events REPLICA IDENTITY FULL;
DO $$
DECLARE partition regclass;
BEGIN
    FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'events'::regclass LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', partition);
    END LOOP;
END $$;
