-- What an organization says AI models cost, in place of the catalogue, and what its own names for them mean.
SET LOCAL lock_timeout = '5s';

CREATE TABLE ai_model_prices (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    model           text NOT NULL,
    input           numeric(24,12) NOT NULL CHECK (input >= 0),            -- major units per million tokens
    output          numeric(24,12) NOT NULL CHECK (output >= 0),
    cache_read      numeric(24,12) CHECK (cache_read >= 0),                -- null: as input
    cache_write     numeric(24,12) CHECK (cache_write >= 0),
    valid_from      timestamptz NOT NULL,
    valid_until     timestamptz CHECK (valid_until > valid_from),
    created_at      timestamptz NOT NULL,
    dropped_at      timestamptz                                            -- kept for what was priced by it
);
CREATE INDEX ai_model_prices_of_organization ON ai_model_prices (organization_id, id);

CREATE TABLE ai_model_aliases (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    name            text NOT NULL,
    model           text NOT NULL,
    created_at      timestamptz NOT NULL
);
CREATE UNIQUE INDEX ai_model_aliases_by_name ON ai_model_aliases (organization_id, lower(name));
