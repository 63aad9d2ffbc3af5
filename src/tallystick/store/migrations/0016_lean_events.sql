-- An event's row says nothing twice. Whose it is, its batch knows (and its customer); when it was received is only said
-- where that is not when it happened; and a leaf, 16 bytes, needs no length before it. (docs/decisions/0027)
-- Rows from before are written anew, a table at a time; nobody may store events meanwhile.
ALTER TABLE events
    ALTER COLUMN leaf TYPE uuid USING encode(leaf, 'hex')::uuid,
    ALTER COLUMN received_at DROP NOT NULL,     -- null: at the moment it happened
    ALTER COLUMN timed DROP NOT NULL,           -- null: no
    DROP COLUMN organization_id;
