-- Late usage that could not be settled says why, is tried again hourly and shown by `doctor`, as periods that could not
-- be closed are.
SET LOCAL lock_timeout = '5s';

ALTER TABLE late_events ADD COLUMN failure text;  -- why the last settlement did not succeed, for the operator
