-- What the last reconciliation of all organizations found, rule by rule: one row each, written over by the next.

CREATE TABLE reconciliations (
    rule        text PRIMARY KEY,
    offenders   bigint NOT NULL CHECK (offenders >= 0),
    first       jsonb NOT NULL,                                 -- [{"organizationId", "what"}]: the first of them
    checked_at  timestamptz NOT NULL                            -- by the wall clock
);
