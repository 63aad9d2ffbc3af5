-- What usage would have cost under another price. Nothing of a simulation is kept but its report.
SET LOCAL lock_timeout = '5s';

CREATE TABLE simulations (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    starts_at       timestamptz NOT NULL,   -- of the span that was asked about
    ends_at         timestamptz NOT NULL,
    asked           jsonb NOT NULL,         -- what was to be otherwise, and for whom
    position        bigint NOT NULL,        -- how far the chain was
    result          jsonb NOT NULL,         -- counts and totals
    customers       jsonb NOT NULL,         -- each customer's part, who would save most first
    created_at      timestamptz NOT NULL,   -- by the organization's clock: open periods were measured until then
    CHECK (starts_at < ends_at)
);
CREATE INDEX simulations_of_organization ON simulations (organization_id, id);
