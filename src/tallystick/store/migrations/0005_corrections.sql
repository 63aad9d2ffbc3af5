-- Events are kept as they were stored; a void is a fact beside them, notched into the chain like any other.

ALTER TABLE events ADD COLUMN voids uuid;      -- set: this row takes back the event of that id
ALTER TABLE events ADD COLUMN voided bigint;   -- the batch that took this event back

CREATE TABLE corrections (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    customer_id     uuid NOT NULL,
    event_code      text NOT NULL,
    span_start      timestamptz NOT NULL,
    span_end        timestamptz NOT NULL,
    reason          text,
    voided          jsonb NOT NULL,                             -- ids of the events taken back
    added           jsonb NOT NULL,                             -- ids of the events put in their place
    reverts         uuid REFERENCES corrections,
    created_at      timestamptz NOT NULL
);
CREATE INDEX corrections_of_organization ON corrections (organization_id, id);
CREATE UNIQUE INDEX corrections_reverted_once ON corrections (reverts) WHERE reverts IS NOT NULL;
