-- Events are kept by the month they happened in: a partition each, made ahead by whoever sweeps. A month that nobody
-- needs any more can leave the database as a file; who was there is kept, so that what is missing can be told from what
-- was taken away (docs/decisions/0022).
SET LOCAL lock_timeout = '5s';

CREATE TABLE archived_months (
    month       date PRIMARY KEY,           -- its first day
    starts      timestamptz NOT NULL,
    ends        timestamptz NOT NULL,
    file_name   text NOT NULL,
    bytes       bigint NOT NULL,
    sha256      bytea NOT NULL,             -- of the file
    events      bigint NOT NULL,
    leaves      bytea NOT NULL,             -- sha256 of all leaves, in order of (customer_id, occurred_at, id)
    archived_at timestamptz NOT NULL,
    note        text
);

-- Whose events those are, and between which ids and batches they lie.
CREATE TABLE archived_shares (
    month           date NOT NULL REFERENCES archived_months ON DELETE CASCADE,
    organization_id uuid NOT NULL REFERENCES organizations,
    events          bigint NOT NULL,
    first_id        uuid NOT NULL,
    last_id         uuid NOT NULL,
    first_batch     bigint NOT NULL,
    last_batch      bigint NOT NULL,
    PRIMARY KEY (month, organization_id)
);

-- What an event cost is summed up long after the event is archived: that it was taken back is noted here, then.
ALTER TABLE ai_costs ADD COLUMN voided bigint;
