-- Each event carries its leaf, so that a close can digest thousands of them where they lie. What a leaf says is still
-- derived from the row's fields by whoever verifies. Rows from before have none and are digested one by one.

ALTER TABLE events ADD COLUMN leaf bytea;
