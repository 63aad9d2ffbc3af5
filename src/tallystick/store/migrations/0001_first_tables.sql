-- The first tables. Everything hot is keyed by customer first, so that it can be distributed by customer.
-- Ids are time-ordered uuids here and prefixed text (cus_…) on the wire; core/ids.py is the one door.
SET LOCAL lock_timeout = '5s';

CREATE TABLE organizations (
    id              uuid PRIMARY KEY,
    name            text NOT NULL,
    mode            text NOT NULL CHECK (mode IN ('sandbox', 'live')),
    timezone        text NOT NULL,
    currency        char(3) NOT NULL,
    api_version     text,                   -- the pinned wire version; null = current
    simulated_time  timestamptz,            -- the test clock; null = the wall clock
    invoice_prefix  text NOT NULL,
    invoices_issued bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL,
    CHECK (simulated_time IS NULL OR mode = 'sandbox')
);

-- One row per organization, locked last by whoever writes: it orders everything that ingest must agree on.
-- `position` and `digest` are the head of the chain of ingest batches; `version` moves when the catalogue,
-- a customer's standing, a key or the clock changes, so an ingest that worked from older facts notices.
CREATE TABLE organization_heads (
    organization_id uuid PRIMARY KEY REFERENCES organizations,
    position        bigint NOT NULL DEFAULT 0,
    digest          bytea NOT NULL,
    version         bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 20);

-- What moved the version: readers forget only these. A null customer means the catalogue or the organization.
CREATE TABLE changes (
    organization_id uuid NOT NULL REFERENCES organizations,
    version         bigint NOT NULL,
    customer_id     uuid,
    PRIMARY KEY (organization_id, version)
);

CREATE TABLE api_keys (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    name            text NOT NULL,
    prefix          text NOT NULL,          -- the first characters, for people to tell keys apart
    secret_hash     bytea NOT NULL UNIQUE,  -- sha256; the key itself is shown once and kept nowhere
    permissions     jsonb,                  -- null = everything
    expires_at      timestamptz,
    revoked_at      timestamptz,
    last_used_at    timestamptz,
    created_at      timestamptz NOT NULL
);
CREATE INDEX api_keys_of_organization ON api_keys (organization_id, id);

CREATE TABLE idempotency_keys (
    organization_id uuid NOT NULL REFERENCES organizations,
    key_hash        bytea NOT NULL,
    request_hash    bytea NOT NULL,
    status          int NOT NULL,
    body            bytea NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, key_hash)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Catalogue -----------------------------------------------------------------------------------------------

CREATE TABLE features (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    code            text NOT NULL,
    name            text NOT NULL,
    type            text NOT NULL CHECK (type IN ('boolean', 'usage', 'seats', 'quota')),
    description     text,
    unit_name       text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    UNIQUE (organization_id, code)
);

-- A meter is never edited: a change is a new version, which counts from the customer's next period on.
CREATE TABLE meters (
    id                   uuid PRIMARY KEY,
    organization_id      uuid NOT NULL REFERENCES organizations,
    feature_id           uuid NOT NULL REFERENCES features ON DELETE CASCADE,
    version              int NOT NULL,
    event_code           text NOT NULL,
    aggregation          text NOT NULL CHECK (aggregation IN ('sum', 'count', 'unique', 'max')),
    aggregation_property text,
    filters              jsonb NOT NULL DEFAULT '[]',
    late_event_policy    text NOT NULL CHECK (late_event_policy IN ('next_period', 'current_period', 'ignore')),
    valid_from           timestamptz NOT NULL,
    UNIQUE (feature_id, version),
    CHECK (aggregation <> 'unique' OR aggregation_property IS NOT NULL)
);
CREATE INDEX meters_of_organization ON meters (organization_id);

CREATE TABLE plans (
    id                  uuid PRIMARY KEY,
    organization_id     uuid NOT NULL REFERENCES organizations,
    code                text NOT NULL,
    name                text NOT NULL,
    description         text,
    consumption_model   text CHECK (consumption_model IN ('metered', 'credits', 'balance')),
    is_public           boolean NOT NULL,
    is_free             boolean NOT NULL,
    block_on_exhaustion boolean,
    sort_order          int NOT NULL DEFAULT 0,
    metadata            jsonb,
    deleted_at          timestamptz,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL
);
CREATE UNIQUE INDEX plans_code ON plans (organization_id, code) WHERE deleted_at IS NULL;

CREATE TABLE plan_prices (
    id               uuid PRIMARY KEY,
    organization_id  uuid NOT NULL REFERENCES organizations,
    plan_id          uuid NOT NULL REFERENCES plans,
    billing_interval text NOT NULL
        CHECK (billing_interval IN ('weekly', 'monthly', 'quarterly', 'semiannual', 'yearly', 'one_time')),
    amount_minor     bigint NOT NULL CHECK (amount_minor >= 0),
    is_default       boolean NOT NULL,
    trial_days       int NOT NULL DEFAULT 0,
    included_balance bigint,
    included_credits bigint,
    metadata         jsonb NOT NULL DEFAULT '{}',
    archived_at      timestamptz,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL
);
CREATE UNIQUE INDEX plan_prices_interval ON plan_prices (plan_id, billing_interval) WHERE archived_at IS NULL;
CREATE UNIQUE INDEX plan_prices_default ON plan_prices (plan_id) WHERE is_default AND archived_at IS NULL;

-- What a plan promises of a feature: versions, never edited; `removed` ends the promise.
CREATE TABLE plan_features (
    id               uuid PRIMARY KEY,
    organization_id  uuid NOT NULL REFERENCES organizations,
    plan_id          uuid NOT NULL REFERENCES plans,
    feature_id       uuid NOT NULL REFERENCES features,
    version          int NOT NULL,
    enabled          boolean NOT NULL,
    included         numeric NOT NULL CHECK (included >= 0),
    unlimited        boolean NOT NULL,
    overage_enabled  boolean NOT NULL,
    price            jsonb NOT NULL,        -- core/pricing.py reads and writes it
    credits_per_unit bigint,
    pricing_mode     text NOT NULL DEFAULT 'fixed' CHECK (pricing_mode IN ('fixed', 'ai_model')),
    margin_bps       int,
    removed          boolean NOT NULL DEFAULT false,
    valid_from       timestamptz NOT NULL,
    UNIQUE (plan_id, feature_id, version)
);
CREATE INDEX plan_features_of_organization ON plan_features (organization_id);
CREATE INDEX plan_features_of_feature ON plan_features (feature_id);

-- Customers and subscriptions -----------------------------------------------------------------------------

CREATE TABLE customers (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    external_id     text,
    email           text NOT NULL,
    full_name       text,
    tax_document    text,
    timezone        text,
    address         jsonb,
    metadata        jsonb,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);
CREATE UNIQUE INDEX customers_external_id ON customers (organization_id, external_id);
CREATE INDEX customers_of_organization ON customers (organization_id, id);

CREATE TABLE subscriptions (
    id               uuid PRIMARY KEY,
    organization_id  uuid NOT NULL REFERENCES organizations,
    customer_id      uuid NOT NULL REFERENCES customers,
    plan_id          uuid NOT NULL REFERENCES plans,
    price_id         uuid REFERENCES plan_prices,
    name             text NOT NULL,
    description      text,
    status           text NOT NULL CHECK (status IN
        ('draft', 'pending_payment', 'trialing', 'active', 'past_due', 'paused', 'canceled')),
    billing_interval text,
    currency         char(3) NOT NULL,
    timezone         text NOT NULL,         -- the zone its next period is counted in
    zones            jsonb NOT NULL DEFAULT '[]', -- once the customer moved: [[first boundary, zone], …]
    anchor_at        timestamptz,           -- the instant of activation: every period follows from it
    anchor_day       date,                  -- its local day, in the zone of that moment
    period_index     int NOT NULL DEFAULT 0,  -- the usage period that is open
    period_start     timestamptz,
    period_end       timestamptz,
    closes_at        timestamptz,           -- period end + grace; null = nothing to close
    cancel_at        timestamptz,           -- a scheduled end
    cancel_requested_at timestamptz,
    cancel_reason    text,
    ended_at         timestamptz,
    checkout_token   text UNIQUE,
    success_url      text,
    close_failure    text,                  -- why the last close did not succeed, for the operator
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL
);
CREATE UNIQUE INDEX subscriptions_one_live ON subscriptions (customer_id) WHERE status <> 'canceled';
CREATE INDEX subscriptions_of_customer ON subscriptions (customer_id, id);
CREATE INDEX subscriptions_of_organization ON subscriptions (organization_id, id);
CREATE INDEX subscriptions_due ON subscriptions (closes_at) WHERE closes_at IS NOT NULL;

-- Usage ---------------------------------------------------------------------------------------------------

CREATE SEQUENCE ingest_batch_numbers;

-- The notches: one record per committed batch, chained to the one before. `leaves` holds 16 bytes per event,
-- in the order of event ids, so that a check can name the very row that changed.
CREATE TABLE ingest_batches (
    organization_id uuid NOT NULL REFERENCES organizations,
    position        bigint NOT NULL,
    batch           bigint NOT NULL,
    first_event_id  uuid NOT NULL,
    events          int NOT NULL,
    leaves          bytea NOT NULL,
    digest          bytea NOT NULL,
    PRIMARY KEY (organization_id, position)
);
CREATE UNIQUE INDEX ingest_batches_by_number ON ingest_batches (batch);

-- Uniqueness for ever, in a narrow table of its own.
CREATE TABLE event_keys (
    customer_id uuid NOT NULL,
    key_hash    bytea NOT NULL,             -- 16 bytes; a collision is settled by the key the event holds
    event_id    uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    header_hash bytea,                      -- 16 bytes of the Idempotency-Key it came with
    PRIMARY KEY (customer_id, key_hash)
);

CREATE TABLE events (
    customer_id     uuid NOT NULL,
    occurred_at     timestamptz NOT NULL,   -- when the customer used it
    id              uuid NOT NULL,
    organization_id uuid NOT NULL,
    received_at     timestamptz NOT NULL,   -- when we heard of it
    batch           bigint NOT NULL,
    feature_code    text NOT NULL,          -- the event code it was sent with
    value           numeric NOT NULL,
    event_key       text,                   -- the sender's key, null when the header stood in for it
    timed           boolean NOT NULL,       -- did the sender say when?
    adjusts         uuid,                   -- set: this is an adjustment of that feature's total
    properties      jsonb,
    reason          text,
    PRIMARY KEY (customer_id, occurred_at, id)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE events_any PARTITION OF events DEFAULT;
-- Ids and batches arrive in order, so a block-range index of a few pages finds one event among millions.
CREATE INDEX events_arrival ON events USING brin (id, batch) WITH (pages_per_range = 32, autosummarize = on);

-- Partial folds: quantity is the sum (or the maximum) of what matched in that hour.
CREATE TABLE usage_hours (
    customer_id uuid NOT NULL,
    meter_id    uuid NOT NULL,
    hour        timestamptz NOT NULL,
    events      bigint NOT NULL,
    quantity    numeric NOT NULL,
    batch       bigint NOT NULL,            -- the last batch that touched it
    PRIMARY KEY (customer_id, meter_id, hour)
);

CREATE TABLE usage_values (
    customer_id uuid NOT NULL,
    meter_id    uuid NOT NULL,
    hour        timestamptz NOT NULL,
    value_hash  bytea NOT NULL,             -- 16 bytes of the distinct value
    PRIMARY KEY (customer_id, meter_id, hour, value_hash)
);

-- Used so far, only for features that stop at their included limit; the row is also their lock.
CREATE TABLE limit_counters (
    customer_id     uuid NOT NULL,
    subscription_id uuid NOT NULL,
    feature_id      uuid NOT NULL,
    period_start    timestamptz NOT NULL,
    used            numeric NOT NULL,
    PRIMARY KEY (customer_id, subscription_id, feature_id, period_start)
);

-- Invoices and payments -----------------------------------------------------------------------------------

CREATE TABLE invoices (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    customer_id     uuid NOT NULL REFERENCES customers,
    subscription_id uuid REFERENCES subscriptions,
    number          bigint NOT NULL,        -- gapless within the organization
    status          text NOT NULL CHECK (status IN ('draft', 'outstanding', 'paid', 'void', 'uncollectible')),
    invoice_type    text NOT NULL,
    currency        char(3) NOT NULL,
    subtotal        bigint NOT NULL,
    discount        bigint NOT NULL DEFAULT 0,
    credit_applied  bigint NOT NULL DEFAULT 0,
    tax             bigint NOT NULL DEFAULT 0,
    total           bigint NOT NULL,
    period_index    int,                    -- the usage period it closes; -1 = the first invoice, which closes none
    period_start    timestamptz NOT NULL,
    period_end      timestamptz NOT NULL,
    issued_at       timestamptz NOT NULL,
    due_at          timestamptz NOT NULL,
    collect_at      timestamptz,            -- when a charge is to be tried; null = nothing promised
    plan_name       text,
    memo            text,
    metadata        jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    UNIQUE (organization_id, number),
    CHECK (total = subtotal - discount - credit_applied + tax)
);
CREATE UNIQUE INDEX invoices_once ON invoices (subscription_id, period_index, invoice_type);
CREATE INDEX invoices_of_customer ON invoices (customer_id, id);
CREATE INDEX invoices_to_collect ON invoices (collect_at) WHERE collect_at IS NOT NULL;

CREATE TABLE invoice_lines (
    id            uuid PRIMARY KEY,
    invoice_id    uuid NOT NULL REFERENCES invoices,
    position      int NOT NULL,
    line_type     text NOT NULL,
    charge_type   text NOT NULL,
    feature_id    uuid,
    feature_name  text,
    description   text NOT NULL,
    quantity      numeric NOT NULL,
    unit_amount   numeric NOT NULL,         -- major units; exact
    amount        bigint NOT NULL,          -- minor units; rounded once, here
    included      numeric,
    used          numeric,
    overage       numeric,
    evidence      jsonb,                    -- core/proof.py: what makes the line re-derivable
    UNIQUE (invoice_id, position)
);

CREATE TABLE payment_methods (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    customer_id     uuid NOT NULL REFERENCES customers,
    provider        text NOT NULL,
    token           text NOT NULL,          -- the provider's handle; never a card number
    brand           text NOT NULL,
    last4           text NOT NULL,
    exp_month       int NOT NULL,
    exp_year        int NOT NULL,
    is_default      boolean NOT NULL,
    created_at      timestamptz NOT NULL
);
CREATE INDEX payment_methods_of_customer ON payment_methods (customer_id, id);

CREATE TABLE transactions (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    customer_id     uuid NOT NULL REFERENCES customers,
    invoice_id      uuid REFERENCES invoices,
    provider        text NOT NULL,
    provider_reference text NOT NULL,
    status          text NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed', 'refunded', 'disputed')),
    gross_amount    bigint NOT NULL,
    subtotal        bigint NOT NULL,
    tax             bigint NOT NULL,
    currency        char(3) NOT NULL,
    reason          text NOT NULL,          -- paymentContext.reason
    failure_code    text,
    failure_message text,
    paid_at         timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    UNIQUE (organization_id, provider_reference)
);
CREATE INDEX transactions_of_organization ON transactions (organization_id, id);

-- The test clock ------------------------------------------------------------------------------------------

CREATE TABLE clock_runs (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    status          text NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed')),
    started_at_time timestamptz NOT NULL,
    target_time     timestamptz NOT NULL,
    estimated       int NOT NULL DEFAULT 0,
    error           text,
    created_at      timestamptz NOT NULL
);
CREATE INDEX clock_runs_of_organization ON clock_runs (organization_id, id);
CREATE UNIQUE INDEX clock_runs_one_at_a_time ON clock_runs (organization_id) WHERE status IN ('pending', 'running');

CREATE TABLE clock_run_items (
    run_id          uuid NOT NULL REFERENCES clock_runs,
    position        int NOT NULL,
    kind            text NOT NULL,
    status          text NOT NULL,
    due_at          timestamptz NOT NULL,
    subscription_id uuid NOT NULL,
    customer_name   text,
    invoice_number  text,
    invoice_id      uuid,
    outcome         text,
    detail          text,
    error           text,
    PRIMARY KEY (run_id, position)
);
