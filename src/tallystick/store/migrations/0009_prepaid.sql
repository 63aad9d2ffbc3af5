-- Prepaid plans: what a subscription may still spend, and every movement of it (docs/prepaid.md).

ALTER TABLE plans ADD COLUMN included_balance bigint CHECK (included_balance >= 0);
ALTER TABLE plans ADD COLUMN included_credits bigint CHECK (included_credits >= 0);
ALTER TABLE plan_prices ADD CONSTRAINT plan_prices_included_balance_check CHECK (included_balance >= 0);
ALTER TABLE plan_prices ADD CONSTRAINT plan_prices_included_credits_check CHECK (included_credits >= 0);

-- What an event took, and what was left then: beside the facts, in no leaf. Null where nothing is prepaid.
ALTER TABLE events ADD COLUMN drew_on text;
ALTER TABLE events ADD COLUMN deducted numeric;
ALTER TABLE events ADD COLUMN remaining numeric;
ALTER TABLE events ADD COLUMN blocked boolean;

-- The sums of the ledger, kept so that an event need not add it up. Credits are counted in credits, a balance in
-- rate units (10000 = 1.00 of the subscription's currency). `plan` is the pool that each period fills anew: the
-- plan's credits, or the balance; `purchased` are the credits that stay.
CREATE TABLE wallets (
    customer_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    model text NOT NULL CHECK (model IN ('credits', 'balance')),
    period_index integer NOT NULL,
    plan numeric NOT NULL,
    purchased numeric NOT NULL CHECK (purchased >= 0),
    held numeric NOT NULL CHECK (held >= held_purchased),
    held_purchased numeric NOT NULL CHECK (held_purchased >= 0),
    refill numeric NOT NULL,
    told_low boolean NOT NULL,
    PRIMARY KEY (customer_id, subscription_id),
    CHECK (model = 'balance' OR plan >= 0)
) WITH (fillfactor = 50);

-- One row moves an amount from one account to another, so the ledger sums to zero whatever is in it.
CREATE TABLE ledger_entries (
    customer_id uuid NOT NULL,
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    period_index integer NOT NULL,
    source text NOT NULL,
    target text NOT NULL CHECK (target <> source),
    amount numeric NOT NULL CHECK (amount > 0),
    cause text NOT NULL,
    batch bigint,
    reference uuid,
    reason text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, id)
);

CREATE INDEX ledger_entries_overdrafts ON ledger_entries (customer_id, subscription_id, period_index)
    WHERE cause = 'overdraft';

-- What is set aside for usage that is yet to be measured. Settled, it becomes an event whose key is its id.
CREATE TABLE reservations (
    customer_id uuid NOT NULL,
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    event_code text NOT NULL,
    quantity numeric,
    model text,
    input_tokens bigint,
    max_output_tokens bigint,
    amount numeric NOT NULL CHECK (amount >= 0),
    status text NOT NULL CHECK (status IN ('held', 'settled', 'released', 'expired')),
    expires_at timestamptz NOT NULL,
    event_id uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, id)
);
CREATE INDEX reservations_of_organization ON reservations (organization_id, id);
CREATE INDEX reservations_held ON reservations (expires_at) WHERE status = 'held';

-- What an AI call cost: with its tokens and the rates, enough to compute it again when every price has changed.
-- Costs are whole rate units, each rounded up; `exact` has them before rounding.
CREATE TABLE ai_costs (
    customer_id uuid NOT NULL,
    event_id uuid NOT NULL,
    feature_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    model text NOT NULL,
    priced_as text NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    rates numeric[] NOT NULL,
    margin_bps integer NOT NULL,
    input_cost bigint NOT NULL,
    output_cost bigint NOT NULL,
    cache_read_cost bigint NOT NULL,
    cache_write_cost bigint NOT NULL,
    subtotal bigint NOT NULL,
    margin bigint NOT NULL,
    total bigint NOT NULL,
    exact numeric[] NOT NULL,
    price_source text NOT NULL,
    price_valid_from timestamptz,
    PRIMARY KEY (customer_id, event_id, feature_id),
    CHECK (subtotal = input_cost + output_cost + cache_read_cost + cache_write_cost AND total = subtotal + margin)
);
CREATE INDEX ai_costs_of_organization ON ai_costs (organization_id, occurred_at);

-- What happened that somebody may want to hear of.
CREATE TABLE domain_events (
    organization_id uuid NOT NULL REFERENCES organizations,
    id uuid NOT NULL,
    customer_id uuid,
    type text NOT NULL,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id)
);

-- Paid refills: a credit pack or a top-up, from the promise to charge it until it is in the wallet.
CREATE TABLE credit_packs (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    name text NOT NULL,
    description text,
    credits bigint NOT NULL CHECK (credits > 0),
    price_minor bigint NOT NULL CHECK (price_minor >= 0),
    is_active boolean NOT NULL,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX credit_packs_name ON credit_packs (organization_id, name) WHERE deleted_at IS NULL;

-- What is charged, and how, is frozen when it is promised: whoever asks the provider again asks the very same.
-- `request_key` is the hash of the request's Idempotency-Key; `retry_at` is of the wall clock, the other instants are
-- of the organization's.
CREATE TABLE purchases (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations,
    customer_id uuid NOT NULL,
    subscription_id uuid NOT NULL REFERENCES subscriptions,
    request_key bytea,
    status text NOT NULL CHECK (status IN ('pending', 'paid', 'declined')),
    kind text NOT NULL CHECK (kind IN ('credits', 'balance')),
    credit_pack_id uuid REFERENCES credit_packs,
    description text NOT NULL,
    quantity numeric NOT NULL CHECK (quantity > 0),
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    currency character(3) NOT NULL,
    payment_method_id uuid REFERENCES payment_methods,
    retry_at timestamptz,
    invoice_id uuid REFERENCES invoices,
    failure_code text,
    failure_message text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK ((status = 'pending') = (retry_at IS NOT NULL)),
    CHECK ((status = 'paid') = (invoice_id IS NOT NULL)),
    CHECK (amount_minor = 0 OR payment_method_id IS NOT NULL)
);
CREATE UNIQUE INDEX purchases_once ON purchases (organization_id, request_key) WHERE request_key IS NOT NULL;
CREATE INDEX purchases_pending ON purchases (retry_at) WHERE status = 'pending';

ALTER TABLE invoice_lines DROP CONSTRAINT invoice_lines_part_check;
ALTER TABLE invoice_lines ADD CONSTRAINT invoice_lines_part_check
    CHECK (part IN ('usage', 'minimum', 'plan_minimum', 'difference', 'overdraft'));
