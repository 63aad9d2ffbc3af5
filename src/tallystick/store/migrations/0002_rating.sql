-- Prices of every model, and what arrives after its period was billed.

ALTER TABLE plan_features
    ADD COLUMN minimum numeric CHECK (minimum >= 0),            -- major units a period, topped up to
    ADD COLUMN maximum numeric CHECK (maximum >= 0),            -- major units a period, capped at
    ADD COLUMN pinned  boolean NOT NULL DEFAULT false;          -- valid_from was asked for: it counts from there

-- The least a plan's usage costs a period: versions, like promises.
CREATE TABLE plan_minimums (
    plan_id         uuid NOT NULL REFERENCES plans,
    version         int NOT NULL,
    organization_id uuid NOT NULL REFERENCES organizations,
    amount          numeric CHECK (amount >= 0),                -- major units; null: none from here on
    valid_from      timestamptz NOT NULL,
    PRIMARY KEY (plan_id, version)
);

ALTER TABLE meters DROP CONSTRAINT meters_aggregation_check;
ALTER TABLE meters ADD CONSTRAINT meters_aggregation_check
    CHECK (aggregation IN ('sum', 'count', 'unique', 'max', 'latest'));
-- When the newest event of the hour happened; only `latest` meters keep it.
ALTER TABLE usage_hours ADD COLUMN latest_at timestamptz;

-- The grace between a period's end and its invoice; null: the mode's default.
ALTER TABLE organizations ADD COLUMN grace_s int CHECK (grace_s >= 0);

-- Which period of which subscription a line rates; a period may be rated again when something arrives late.
ALTER TABLE invoice_lines
    ADD COLUMN subscription_id uuid,
    ADD COLUMN usage_period    int,
    ADD COLUMN part            text CHECK (part IN ('usage', 'minimum', 'plan_minimum', 'difference'));
CREATE INDEX invoice_lines_of_period ON invoice_lines (subscription_id, usage_period) WHERE usage_period IS NOT NULL;
UPDATE invoice_lines l
   SET subscription_id = i.subscription_id, usage_period = i.period_index, part = 'usage'
  FROM invoices i WHERE i.id = l.invoice_id AND l.line_type = 'feature_overage';

DROP INDEX invoices_once;
CREATE UNIQUE INDEX invoices_once ON invoices (subscription_id, period_index, invoice_type)
    WHERE invoice_type <> 'adjustment';

-- What a close made a fact: the period, and how far the chain was when it was last rated.
CREATE TABLE closed_periods (
    subscription_id uuid NOT NULL REFERENCES subscriptions,
    period_index    int NOT NULL,
    organization_id uuid NOT NULL REFERENCES organizations,
    customer_id     uuid NOT NULL,
    plan_id         uuid NOT NULL,
    timezone        text NOT NULL,
    period_start    timestamptz NOT NULL,
    period_end      timestamptz NOT NULL,
    position        bigint NOT NULL,
    closed_at       timestamptz NOT NULL,
    PRIMARY KEY (subscription_id, period_index)
);
CREATE INDEX closed_periods_of_customer ON closed_periods (customer_id, period_end);

-- Events that happened before the period that was open when they arrived, and what was decided of them.
CREATE TABLE late_events (
    customer_id     uuid NOT NULL,
    event_id        uuid NOT NULL,
    organization_id uuid NOT NULL,
    occurred_at     timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    due_at          timestamptz,                                -- null: decided
    decisions       jsonb NOT NULL DEFAULT '[]',
    PRIMARY KEY (customer_id, event_id)
);
CREATE INDEX late_events_undecided ON late_events (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX late_events_of_organization ON late_events (organization_id, event_id);
