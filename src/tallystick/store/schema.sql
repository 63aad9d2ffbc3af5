CREATE FUNCTION bunch_of(id uuid) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((get_byte(uuid_send(id), 14) * 256) + get_byte(uuid_send(id), 15));
CREATE FUNCTION hour_of(at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin('01:00:00'::interval, at, '1970-01-01 00:00:00+00'::timestamp with time zone);
CREATE TABLE ai_costs (
    customer_id uuid NOT NULL,
    event_id uuid NOT NULL,
    feature_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
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
    price_valid_from timestamp with time zone,
    voided bigint,
    CONSTRAINT ai_costs_check CHECK (((subtotal = (((input_cost + output_cost) + cache_read_cost) + cache_write_cost)) AND (total = (subtotal + margin))))
);
CREATE TABLE ai_model_aliases (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    name text NOT NULL,
    model text NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE ai_model_prices (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    model text NOT NULL,
    input numeric(24,12) NOT NULL,
    output numeric(24,12) NOT NULL,
    cache_read numeric(24,12),
    cache_write numeric(24,12),
    valid_from timestamp with time zone NOT NULL,
    valid_until timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    dropped_at timestamp with time zone,
    CONSTRAINT ai_model_prices_cache_read_check CHECK ((cache_read >= (0)::numeric)),
    CONSTRAINT ai_model_prices_cache_write_check CHECK ((cache_write >= (0)::numeric)),
    CONSTRAINT ai_model_prices_check CHECK ((valid_until > valid_from)),
    CONSTRAINT ai_model_prices_input_check CHECK ((input >= (0)::numeric)),
    CONSTRAINT ai_model_prices_output_check CHECK ((output >= (0)::numeric))
);
CREATE TABLE api_keys (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    name text NOT NULL,
    prefix text NOT NULL,
    secret_hash bytea NOT NULL,
    permissions jsonb,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE archived_months (
    month date NOT NULL,
    starts timestamp with time zone NOT NULL,
    ends timestamp with time zone NOT NULL,
    file_name text NOT NULL,
    bytes bigint NOT NULL,
    sha256 bytea NOT NULL,
    events bigint NOT NULL,
    leaves bytea NOT NULL,
    archived_at timestamp with time zone NOT NULL,
    note text
);
CREATE TABLE archived_shares (
    month date NOT NULL,
    organization_id uuid NOT NULL,
    events bigint NOT NULL,
    first_id uuid NOT NULL,
    last_id uuid NOT NULL,
    first_batch bigint NOT NULL,
    last_batch bigint NOT NULL
);
CREATE TABLE changes (
    organization_id uuid NOT NULL,
    version bigint NOT NULL,
    customer_id uuid,
    only_keys boolean DEFAULT false NOT NULL
);
CREATE TABLE clock_run_items (
    run_id uuid NOT NULL,
    "position" integer NOT NULL,
    kind text NOT NULL,
    status text NOT NULL,
    due_at timestamp with time zone NOT NULL,
    subscription_id uuid NOT NULL,
    customer_name text,
    invoice_number text,
    invoice_id uuid,
    outcome text,
    detail text,
    error text
);
CREATE TABLE clock_runs (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    status text NOT NULL,
    started_at_time timestamp with time zone NOT NULL,
    target_time timestamp with time zone NOT NULL,
    estimated integer DEFAULT 0 NOT NULL,
    error text,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT clock_runs_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text])))
);
CREATE TABLE closed_periods (
    subscription_id uuid NOT NULL,
    period_index integer NOT NULL,
    organization_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    plan_id uuid NOT NULL,
    timezone text NOT NULL,
    period_start timestamp with time zone NOT NULL,
    period_end timestamp with time zone NOT NULL,
    "position" bigint NOT NULL,
    closed_at timestamp with time zone NOT NULL
);
CREATE TABLE corrections (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    event_code text NOT NULL,
    span_start timestamp with time zone NOT NULL,
    span_end timestamp with time zone NOT NULL,
    reason text,
    voided jsonb NOT NULL,
    added jsonb NOT NULL,
    reverts uuid,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE credit_packs (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    name text NOT NULL,
    description text,
    credits bigint NOT NULL,
    price_minor bigint NOT NULL,
    is_active boolean NOT NULL,
    deleted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT credit_packs_credits_check CHECK ((credits > 0)),
    CONSTRAINT credit_packs_price_minor_check CHECK ((price_minor >= 0))
);
CREATE TABLE customers (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    external_id text,
    email text NOT NULL,
    full_name text,
    tax_document text,
    timezone text,
    address jsonb,
    metadata jsonb,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE distinct_values (
    customer_id uuid NOT NULL,
    feature_id uuid NOT NULL,
    value_hash bytea NOT NULL,
    number integer NOT NULL,
    CONSTRAINT distinct_values_number_check CHECK ((number >= 0))
);
CREATE TABLE domain_events (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    customer_id uuid,
    type text NOT NULL,
    data jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE event_keys (
    customer_id uuid NOT NULL,
    key_hash uuid NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    generation integer NOT NULL,
    header_mark integer
)
PARTITION BY LIST (generation);
CREATE TABLE event_keys_g0 (
    customer_id uuid CONSTRAINT event_keys_customer_id_not_null NOT NULL,
    key_hash uuid CONSTRAINT event_keys_key_hash_not_null NOT NULL,
    event_id uuid CONSTRAINT event_keys_event_id_not_null NOT NULL,
    occurred_at timestamp with time zone CONSTRAINT event_keys_occurred_at_not_null NOT NULL,
    generation integer CONSTRAINT event_keys_generation_not_null NOT NULL,
    header_mark integer
);
CREATE TABLE events (
    customer_id uuid NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    id uuid NOT NULL,
    received_at timestamp with time zone,
    batch bigint NOT NULL,
    feature_code text NOT NULL,
    value numeric NOT NULL,
    event_key text,
    timed boolean,
    adjusts uuid,
    properties jsonb,
    reason text,
    voids uuid,
    voided bigint,
    leaf uuid,
    drew_on text,
    deducted numeric,
    remaining numeric,
    blocked boolean
)
PARTITION BY RANGE (occurred_at);
ALTER TABLE ONLY events REPLICA IDENTITY FULL;
CREATE TABLE events_any (
    customer_id uuid CONSTRAINT events_customer_id_not_null NOT NULL,
    occurred_at timestamp with time zone CONSTRAINT events_occurred_at_not_null NOT NULL,
    id uuid CONSTRAINT events_id_not_null NOT NULL,
    received_at timestamp with time zone,
    batch bigint CONSTRAINT events_batch_not_null NOT NULL,
    feature_code text CONSTRAINT events_feature_code_not_null NOT NULL,
    value numeric CONSTRAINT events_value_not_null NOT NULL,
    event_key text,
    timed boolean,
    adjusts uuid,
    properties jsonb,
    reason text,
    voids uuid,
    voided bigint,
    leaf uuid,
    drew_on text,
    deducted numeric,
    remaining numeric,
    blocked boolean
);
ALTER TABLE ONLY events_any REPLICA IDENTITY FULL;
CREATE TABLE features (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    type text NOT NULL,
    description text,
    unit_name text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT features_type_check CHECK ((type = ANY (ARRAY['boolean'::text, 'usage'::text, 'seats'::text, 'quota'::text])))
);
CREATE TABLE idempotency_keys (
    organization_id uuid NOT NULL,
    key_hash bytea NOT NULL,
    request_hash bytea NOT NULL,
    status integer NOT NULL,
    body bytea NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE SEQUENCE ingest_batch_numbers
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
CREATE TABLE ingest_batches (
    organization_id uuid NOT NULL,
    "position" bigint NOT NULL,
    batch bigint NOT NULL,
    first_event_id uuid NOT NULL,
    events integer NOT NULL,
    leaves bytea NOT NULL,
    digest bytea NOT NULL
);
CREATE TABLE invoice_lines (
    id uuid NOT NULL,
    invoice_id uuid NOT NULL,
    "position" integer NOT NULL,
    line_type text NOT NULL,
    charge_type text NOT NULL,
    feature_id uuid,
    feature_name text,
    description text NOT NULL,
    quantity numeric NOT NULL,
    unit_amount numeric NOT NULL,
    amount bigint NOT NULL,
    included numeric,
    used numeric,
    overage numeric,
    evidence jsonb,
    subscription_id uuid,
    usage_period integer,
    part text,
    CONSTRAINT invoice_lines_part_check CHECK ((part = ANY (ARRAY['usage'::text, 'minimum'::text, 'plan_minimum'::text, 'difference'::text, 'overdraft'::text])))
);
CREATE TABLE invoices (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    subscription_id uuid,
    number bigint NOT NULL,
    status text NOT NULL,
    invoice_type text NOT NULL,
    currency character(3) NOT NULL,
    subtotal bigint NOT NULL,
    discount bigint DEFAULT 0 NOT NULL,
    credit_applied bigint DEFAULT 0 NOT NULL,
    tax bigint DEFAULT 0 NOT NULL,
    total bigint NOT NULL,
    period_index integer,
    period_start timestamp with time zone NOT NULL,
    period_end timestamp with time zone NOT NULL,
    issued_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    collect_at timestamp with time zone,
    plan_name text,
    memo text,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT invoices_check CHECK ((total = (((subtotal - discount) - credit_applied) + tax))),
    CONSTRAINT invoices_status_check CHECK ((status = ANY (ARRAY['draft'::text, 'outstanding'::text, 'paid'::text, 'void'::text, 'uncollectible'::text])))
);
CREATE TABLE key_filters (
    generation integer NOT NULL,
    part integer NOT NULL,
    bits bytea NOT NULL
);
ALTER TABLE ONLY key_filters ALTER COLUMN bits SET STORAGE EXTERNAL;
CREATE TABLE key_generations (
    number integer NOT NULL,
    first_batch bigint NOT NULL,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    frozen_at timestamp with time zone,
    filter_bytes bigint,
    filter_digest bytea
);
CREATE TABLE late_events (
    customer_id uuid NOT NULL,
    event_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone,
    decisions jsonb DEFAULT '[]'::jsonb NOT NULL,
    failure text
);
CREATE TABLE ledger_entries (
    customer_id uuid NOT NULL,
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    period_index integer NOT NULL,
    source text NOT NULL,
    target text NOT NULL,
    amount numeric NOT NULL,
    cause text NOT NULL,
    batch bigint,
    reference uuid,
    reason text,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT ledger_entries_amount_check CHECK ((amount > (0)::numeric)),
    CONSTRAINT ledger_entries_check CHECK ((target <> source))
);
CREATE TABLE limit_counters (
    customer_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    feature_id uuid NOT NULL,
    period_start timestamp with time zone NOT NULL,
    used numeric NOT NULL
);
CREATE TABLE meters (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    feature_id uuid NOT NULL,
    version integer NOT NULL,
    event_code text NOT NULL,
    aggregation text NOT NULL,
    aggregation_property text,
    filters jsonb DEFAULT '[]'::jsonb NOT NULL,
    late_event_policy text NOT NULL,
    valid_from timestamp with time zone NOT NULL,
    CONSTRAINT meters_aggregation_check CHECK ((aggregation = ANY (ARRAY['sum'::text, 'count'::text, 'unique'::text, 'max'::text, 'latest'::text]))),
    CONSTRAINT meters_check CHECK (((aggregation <> 'unique'::text) OR (aggregation_property IS NOT NULL))),
    CONSTRAINT meters_late_event_policy_check CHECK ((late_event_policy = ANY (ARRAY['next_period'::text, 'current_period'::text, 'ignore'::text])))
);
CREATE TABLE migrations (
    number integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE organization_heads (
    organization_id uuid NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    digest bytea NOT NULL,
    version bigint DEFAULT 1 NOT NULL
)
WITH (fillfactor='20');
CREATE TABLE organizations (
    id uuid NOT NULL,
    name text NOT NULL,
    mode text NOT NULL,
    timezone text NOT NULL,
    currency character(3) NOT NULL,
    api_version text,
    simulated_time timestamp with time zone,
    invoice_prefix text NOT NULL,
    invoices_issued bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    grace_s integer,
    CONSTRAINT organizations_check CHECK (((simulated_time IS NULL) OR (mode = 'sandbox'::text))),
    CONSTRAINT organizations_grace_s_check CHECK ((grace_s >= 0)),
    CONSTRAINT organizations_mode_check CHECK ((mode = ANY (ARRAY['sandbox'::text, 'live'::text])))
);
CREATE TABLE payment_methods (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    provider text NOT NULL,
    token text NOT NULL,
    brand text NOT NULL,
    last4 text NOT NULL,
    exp_month integer NOT NULL,
    exp_year integer NOT NULL,
    is_default boolean NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE plan_features (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    plan_id uuid NOT NULL,
    feature_id uuid NOT NULL,
    version integer NOT NULL,
    enabled boolean NOT NULL,
    included numeric NOT NULL,
    unlimited boolean NOT NULL,
    overage_enabled boolean NOT NULL,
    price jsonb NOT NULL,
    credits_per_unit bigint,
    pricing_mode text DEFAULT 'fixed'::text NOT NULL,
    margin_bps integer,
    removed boolean DEFAULT false NOT NULL,
    valid_from timestamp with time zone NOT NULL,
    minimum numeric,
    maximum numeric,
    pinned boolean DEFAULT false NOT NULL,
    CONSTRAINT plan_features_included_check CHECK ((included >= (0)::numeric)),
    CONSTRAINT plan_features_maximum_check CHECK ((maximum >= (0)::numeric)),
    CONSTRAINT plan_features_minimum_check CHECK ((minimum >= (0)::numeric)),
    CONSTRAINT plan_features_pricing_mode_check CHECK ((pricing_mode = ANY (ARRAY['fixed'::text, 'ai_model'::text])))
);
CREATE TABLE plan_minimums (
    plan_id uuid NOT NULL,
    version integer NOT NULL,
    organization_id uuid NOT NULL,
    amount numeric,
    valid_from timestamp with time zone NOT NULL,
    CONSTRAINT plan_minimums_amount_check CHECK ((amount >= (0)::numeric))
);
CREATE TABLE plan_prices (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    plan_id uuid NOT NULL,
    billing_interval text NOT NULL,
    amount_minor bigint NOT NULL,
    is_default boolean NOT NULL,
    trial_days integer DEFAULT 0 NOT NULL,
    included_balance bigint,
    included_credits bigint,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    archived_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT plan_prices_amount_minor_check CHECK ((amount_minor >= 0)),
    CONSTRAINT plan_prices_billing_interval_check CHECK ((billing_interval = ANY (ARRAY['weekly'::text, 'monthly'::text, 'quarterly'::text, 'semiannual'::text, 'yearly'::text, 'one_time'::text]))),
    CONSTRAINT plan_prices_included_balance_check CHECK ((included_balance >= 0)),
    CONSTRAINT plan_prices_included_credits_check CHECK ((included_credits >= 0))
);
CREATE TABLE plans (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    description text,
    consumption_model text,
    is_public boolean NOT NULL,
    is_free boolean NOT NULL,
    block_on_exhaustion boolean,
    sort_order integer DEFAULT 0 NOT NULL,
    metadata jsonb,
    deleted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    included_balance bigint,
    included_credits bigint,
    CONSTRAINT plans_consumption_model_check CHECK ((consumption_model = ANY (ARRAY['metered'::text, 'credits'::text, 'balance'::text]))),
    CONSTRAINT plans_included_balance_check CHECK ((included_balance >= 0)),
    CONSTRAINT plans_included_credits_check CHECK ((included_credits >= 0))
);
CREATE TABLE purchases (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    request_key bytea,
    status text NOT NULL,
    kind text NOT NULL,
    credit_pack_id uuid,
    description text NOT NULL,
    quantity numeric NOT NULL,
    amount_minor bigint NOT NULL,
    currency character(3) NOT NULL,
    payment_method_id uuid,
    retry_at timestamp with time zone,
    invoice_id uuid,
    failure_code text,
    failure_message text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT purchases_amount_minor_check CHECK ((amount_minor >= 0)),
    CONSTRAINT purchases_check CHECK (((status = 'pending'::text) = (retry_at IS NOT NULL))),
    CONSTRAINT purchases_check1 CHECK (((status = 'paid'::text) = (invoice_id IS NOT NULL))),
    CONSTRAINT purchases_check2 CHECK (((amount_minor = 0) OR (payment_method_id IS NOT NULL))),
    CONSTRAINT purchases_kind_check CHECK ((kind = ANY (ARRAY['credits'::text, 'balance'::text]))),
    CONSTRAINT purchases_quantity_check CHECK ((quantity > (0)::numeric)),
    CONSTRAINT purchases_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'paid'::text, 'declined'::text])))
);
CREATE TABLE reconciliations (
    rule text NOT NULL,
    offenders bigint NOT NULL,
    first jsonb NOT NULL,
    checked_at timestamp with time zone NOT NULL,
    CONSTRAINT reconciliations_offenders_check CHECK ((offenders >= 0))
);
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
    amount numeric NOT NULL,
    status text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    event_id uuid,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT reservations_amount_check CHECK ((amount >= (0)::numeric)),
    CONSTRAINT reservations_status_check CHECK ((status = ANY (ARRAY['held'::text, 'settled'::text, 'released'::text, 'expired'::text])))
);
CREATE TABLE simulations (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    asked jsonb NOT NULL,
    "position" bigint NOT NULL,
    result jsonb NOT NULL,
    customers jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT simulations_check CHECK ((starts_at < ends_at))
);
CREATE TABLE subscriptions (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    plan_id uuid NOT NULL,
    price_id uuid,
    name text NOT NULL,
    description text,
    status text NOT NULL,
    billing_interval text,
    currency character(3) NOT NULL,
    timezone text NOT NULL,
    zones jsonb DEFAULT '[]'::jsonb NOT NULL,
    anchor_at timestamp with time zone,
    anchor_day date,
    period_index integer DEFAULT 0 NOT NULL,
    period_start timestamp with time zone,
    period_end timestamp with time zone,
    closes_at timestamp with time zone,
    cancel_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    cancel_reason text,
    ended_at timestamp with time zone,
    checkout_token text,
    success_url text,
    close_failure text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT subscriptions_status_check CHECK ((status = ANY (ARRAY['draft'::text, 'pending_payment'::text, 'trialing'::text, 'active'::text, 'past_due'::text, 'paused'::text, 'canceled'::text])))
);
CREATE TABLE transactions (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    customer_id uuid NOT NULL,
    invoice_id uuid,
    provider text NOT NULL,
    provider_reference text NOT NULL,
    status text NOT NULL,
    gross_amount bigint NOT NULL,
    subtotal bigint NOT NULL,
    tax bigint NOT NULL,
    currency character(3) NOT NULL,
    reason text NOT NULL,
    failure_code text,
    failure_message text,
    paid_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT transactions_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'succeeded'::text, 'failed'::text, 'refunded'::text, 'disputed'::text])))
);
CREATE TABLE usage_hours (
    customer_id uuid NOT NULL,
    meter_id uuid NOT NULL,
    hour timestamp with time zone NOT NULL,
    events bigint NOT NULL,
    quantity numeric NOT NULL,
    batch bigint NOT NULL,
    latest_at timestamp with time zone
)
WITH (fillfactor='75');
CREATE TABLE usage_sets (
    customer_id uuid NOT NULL,
    meter_id uuid NOT NULL,
    hour timestamp with time zone NOT NULL,
    block integer NOT NULL,
    members bit(2048) NOT NULL
)
WITH (fillfactor='75');
CREATE TABLE wallets (
    customer_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    model text NOT NULL,
    period_index integer NOT NULL,
    plan numeric NOT NULL,
    purchased numeric NOT NULL,
    held numeric NOT NULL,
    held_purchased numeric NOT NULL,
    refill numeric NOT NULL,
    told_low boolean NOT NULL,
    CONSTRAINT wallets_check CHECK ((held >= held_purchased)),
    CONSTRAINT wallets_check1 CHECK (((model = 'balance'::text) OR (plan >= (0)::numeric))),
    CONSTRAINT wallets_held_purchased_check CHECK ((held_purchased >= (0)::numeric)),
    CONSTRAINT wallets_model_check CHECK ((model = ANY (ARRAY['credits'::text, 'balance'::text]))),
    CONSTRAINT wallets_purchased_check CHECK ((purchased >= (0)::numeric))
)
WITH (fillfactor='50');
ALTER TABLE ONLY event_keys ATTACH PARTITION event_keys_g0 FOR VALUES IN (0);
ALTER TABLE ONLY events ATTACH PARTITION events_any DEFAULT;
ALTER TABLE ONLY ai_costs
    ADD CONSTRAINT ai_costs_pkey PRIMARY KEY (customer_id, event_id, feature_id);
ALTER TABLE ONLY ai_model_aliases
    ADD CONSTRAINT ai_model_aliases_pkey PRIMARY KEY (id);
ALTER TABLE ONLY ai_model_prices
    ADD CONSTRAINT ai_model_prices_pkey PRIMARY KEY (id);
ALTER TABLE ONLY api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY api_keys
    ADD CONSTRAINT api_keys_secret_hash_key UNIQUE (secret_hash);
ALTER TABLE ONLY archived_months
    ADD CONSTRAINT archived_months_pkey PRIMARY KEY (month);
ALTER TABLE ONLY archived_shares
    ADD CONSTRAINT archived_shares_pkey PRIMARY KEY (month, organization_id);
ALTER TABLE ONLY changes
    ADD CONSTRAINT changes_pkey PRIMARY KEY (organization_id, version);
ALTER TABLE ONLY clock_run_items
    ADD CONSTRAINT clock_run_items_pkey PRIMARY KEY (run_id, "position");
ALTER TABLE ONLY clock_runs
    ADD CONSTRAINT clock_runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY closed_periods
    ADD CONSTRAINT closed_periods_pkey PRIMARY KEY (subscription_id, period_index);
ALTER TABLE ONLY corrections
    ADD CONSTRAINT corrections_pkey PRIMARY KEY (id);
ALTER TABLE ONLY credit_packs
    ADD CONSTRAINT credit_packs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY customers
    ADD CONSTRAINT customers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY distinct_values
    ADD CONSTRAINT distinct_values_customer_id_feature_id_number_key UNIQUE (customer_id, feature_id, number);
ALTER TABLE ONLY distinct_values
    ADD CONSTRAINT distinct_values_pkey PRIMARY KEY (customer_id, feature_id, value_hash);
ALTER TABLE ONLY domain_events
    ADD CONSTRAINT domain_events_pkey PRIMARY KEY (organization_id, id);
ALTER TABLE ONLY event_keys_g0
    ADD CONSTRAINT event_keys_g0_pkey PRIMARY KEY (key_hash);
ALTER TABLE ONLY features
    ADD CONSTRAINT features_organization_id_code_key UNIQUE (organization_id, code);
ALTER TABLE ONLY features
    ADD CONSTRAINT features_pkey PRIMARY KEY (id);
ALTER TABLE ONLY idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (organization_id, key_hash);
ALTER TABLE ONLY ingest_batches
    ADD CONSTRAINT ingest_batches_pkey PRIMARY KEY (organization_id, "position");
ALTER TABLE ONLY invoice_lines
    ADD CONSTRAINT invoice_lines_invoice_id_position_key UNIQUE (invoice_id, "position");
ALTER TABLE ONLY invoice_lines
    ADD CONSTRAINT invoice_lines_pkey PRIMARY KEY (id);
ALTER TABLE ONLY invoices
    ADD CONSTRAINT invoices_organization_id_number_key UNIQUE (organization_id, number);
ALTER TABLE ONLY invoices
    ADD CONSTRAINT invoices_pkey PRIMARY KEY (id);
ALTER TABLE ONLY key_filters
    ADD CONSTRAINT key_filters_pkey PRIMARY KEY (generation, part);
ALTER TABLE ONLY key_generations
    ADD CONSTRAINT key_generations_pkey PRIMARY KEY (number);
ALTER TABLE ONLY late_events
    ADD CONSTRAINT late_events_pkey PRIMARY KEY (customer_id, event_id);
ALTER TABLE ONLY ledger_entries
    ADD CONSTRAINT ledger_entries_pkey PRIMARY KEY (customer_id, id);
ALTER TABLE ONLY limit_counters
    ADD CONSTRAINT limit_counters_pkey PRIMARY KEY (customer_id, subscription_id, feature_id, period_start);
ALTER TABLE ONLY meters
    ADD CONSTRAINT meters_feature_id_version_key UNIQUE (feature_id, version);
ALTER TABLE ONLY meters
    ADD CONSTRAINT meters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (number);
ALTER TABLE ONLY organization_heads
    ADD CONSTRAINT organization_heads_pkey PRIMARY KEY (organization_id);
ALTER TABLE ONLY organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY payment_methods
    ADD CONSTRAINT payment_methods_pkey PRIMARY KEY (id);
ALTER TABLE ONLY plan_features
    ADD CONSTRAINT plan_features_pkey PRIMARY KEY (id);
ALTER TABLE ONLY plan_features
    ADD CONSTRAINT plan_features_plan_id_feature_id_version_key UNIQUE (plan_id, feature_id, version);
ALTER TABLE ONLY plan_minimums
    ADD CONSTRAINT plan_minimums_pkey PRIMARY KEY (plan_id, version);
ALTER TABLE ONLY plan_prices
    ADD CONSTRAINT plan_prices_pkey PRIMARY KEY (id);
ALTER TABLE ONLY plans
    ADD CONSTRAINT plans_pkey PRIMARY KEY (id);
ALTER TABLE ONLY purchases
    ADD CONSTRAINT purchases_pkey PRIMARY KEY (id);
ALTER TABLE ONLY reconciliations
    ADD CONSTRAINT reconciliations_pkey PRIMARY KEY (rule);
ALTER TABLE ONLY reservations
    ADD CONSTRAINT reservations_pkey PRIMARY KEY (customer_id, id);
ALTER TABLE ONLY simulations
    ADD CONSTRAINT simulations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY subscriptions
    ADD CONSTRAINT subscriptions_checkout_token_key UNIQUE (checkout_token);
ALTER TABLE ONLY subscriptions
    ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY transactions
    ADD CONSTRAINT transactions_organization_id_provider_reference_key UNIQUE (organization_id, provider_reference);
ALTER TABLE ONLY transactions
    ADD CONSTRAINT transactions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY usage_hours
    ADD CONSTRAINT usage_hours_pkey PRIMARY KEY (customer_id, meter_id, hour);
ALTER TABLE ONLY usage_sets
    ADD CONSTRAINT usage_sets_pkey PRIMARY KEY (customer_id, meter_id, hour, block);
ALTER TABLE ONLY wallets
    ADD CONSTRAINT wallets_pkey PRIMARY KEY (customer_id, subscription_id);
CREATE INDEX ai_costs_of_organization ON ai_costs USING btree (organization_id, occurred_at);
CREATE UNIQUE INDEX ai_model_aliases_by_name ON ai_model_aliases USING btree (organization_id, lower(name));
CREATE INDEX ai_model_prices_of_organization ON ai_model_prices USING btree (organization_id, id);
CREATE INDEX api_keys_of_organization ON api_keys USING btree (organization_id, id);
CREATE INDEX clock_runs_of_organization ON clock_runs USING btree (organization_id, id);
CREATE UNIQUE INDEX clock_runs_one_at_a_time ON clock_runs USING btree (organization_id) WHERE (status = ANY (ARRAY['pending'::text, 'running'::text]));
CREATE INDEX closed_periods_of_customer ON closed_periods USING btree (customer_id, period_end);
CREATE INDEX corrections_of_organization ON corrections USING btree (organization_id, id);
CREATE UNIQUE INDEX corrections_reverted_once ON corrections USING btree (reverts) WHERE (reverts IS NOT NULL);
CREATE UNIQUE INDEX credit_packs_name ON credit_packs USING btree (organization_id, name) WHERE (deleted_at IS NULL);
CREATE UNIQUE INDEX customers_external_id ON customers USING btree (organization_id, external_id);
CREATE INDEX customers_of_organization ON customers USING btree (organization_id, id);
CREATE INDEX events_by_hour ON ONLY events USING btree (customer_id, hour_of(occurred_at), bunch_of(id));
CREATE INDEX events_any_customer_id_hour_of_bunch_of_idx ON events_any USING btree (customer_id, hour_of(occurred_at), bunch_of(id));
CREATE INDEX events_arrival ON ONLY events USING brin (id, batch) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX events_any_id_batch_idx ON events_any USING brin (id, batch) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX events_that_void ON ONLY events USING btree (voids) WHERE (voids IS NOT NULL);
CREATE INDEX events_any_voids_idx ON events_any USING btree (voids) WHERE (voids IS NOT NULL);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys USING btree (created_at);
CREATE UNIQUE INDEX ingest_batches_by_number ON ingest_batches USING btree (batch);
CREATE INDEX invoice_lines_of_period ON invoice_lines USING btree (subscription_id, usage_period) WHERE (usage_period IS NOT NULL);
CREATE INDEX invoices_of_customer ON invoices USING btree (customer_id, id);
CREATE UNIQUE INDEX invoices_once ON invoices USING btree (subscription_id, period_index, invoice_type) WHERE (invoice_type <> 'adjustment'::text);
CREATE INDEX invoices_to_collect ON invoices USING btree (collect_at) WHERE (collect_at IS NOT NULL);
CREATE UNIQUE INDEX key_generations_open ON key_generations USING btree ((true)) WHERE (frozen_at IS NULL);
CREATE INDEX late_events_of_organization ON late_events USING btree (organization_id, event_id);
CREATE INDEX late_events_undecided ON late_events USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX ledger_entries_overdrafts ON ledger_entries USING btree (customer_id, subscription_id, period_index) WHERE (cause = 'overdraft'::text);
CREATE INDEX meters_of_organization ON meters USING btree (organization_id);
CREATE INDEX payment_methods_of_customer ON payment_methods USING btree (customer_id, id);
CREATE INDEX plan_features_of_feature ON plan_features USING btree (feature_id);
CREATE INDEX plan_features_of_organization ON plan_features USING btree (organization_id);
CREATE UNIQUE INDEX plan_prices_default ON plan_prices USING btree (plan_id) WHERE (is_default AND (archived_at IS NULL));
CREATE UNIQUE INDEX plan_prices_interval ON plan_prices USING btree (plan_id, billing_interval) WHERE (archived_at IS NULL);
CREATE UNIQUE INDEX plans_code ON plans USING btree (organization_id, code) WHERE (deleted_at IS NULL);
CREATE UNIQUE INDEX purchases_once ON purchases USING btree (organization_id, request_key) WHERE (request_key IS NOT NULL);
CREATE INDEX purchases_pending ON purchases USING btree (retry_at) WHERE (status = 'pending'::text);
CREATE INDEX reservations_held ON reservations USING btree (expires_at) WHERE (status = 'held'::text);
CREATE INDEX reservations_of_organization ON reservations USING btree (organization_id, id);
CREATE INDEX simulations_of_organization ON simulations USING btree (organization_id, id);
CREATE INDEX subscriptions_due ON subscriptions USING btree (closes_at) WHERE (closes_at IS NOT NULL);
CREATE INDEX subscriptions_of_customer ON subscriptions USING btree (customer_id, id);
CREATE INDEX subscriptions_of_organization ON subscriptions USING btree (organization_id, id);
CREATE UNIQUE INDEX subscriptions_one_live ON subscriptions USING btree (customer_id) WHERE (status <> 'canceled'::text);
CREATE INDEX transactions_of_invoice ON transactions USING btree (invoice_id) WHERE (invoice_id IS NOT NULL);
CREATE INDEX transactions_of_organization ON transactions USING btree (organization_id, id);
ALTER INDEX events_by_hour ATTACH PARTITION events_any_customer_id_hour_of_bunch_of_idx;
ALTER INDEX events_arrival ATTACH PARTITION events_any_id_batch_idx;
ALTER INDEX events_that_void ATTACH PARTITION events_any_voids_idx;
ALTER TABLE ONLY ai_model_aliases
    ADD CONSTRAINT ai_model_aliases_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY ai_model_prices
    ADD CONSTRAINT ai_model_prices_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY api_keys
    ADD CONSTRAINT api_keys_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY archived_shares
    ADD CONSTRAINT archived_shares_month_fkey FOREIGN KEY (month) REFERENCES archived_months(month) ON DELETE CASCADE;
ALTER TABLE ONLY archived_shares
    ADD CONSTRAINT archived_shares_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY changes
    ADD CONSTRAINT changes_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY clock_run_items
    ADD CONSTRAINT clock_run_items_run_id_fkey FOREIGN KEY (run_id) REFERENCES clock_runs(id);
ALTER TABLE ONLY clock_runs
    ADD CONSTRAINT clock_runs_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY closed_periods
    ADD CONSTRAINT closed_periods_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY closed_periods
    ADD CONSTRAINT closed_periods_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES subscriptions(id);
ALTER TABLE ONLY corrections
    ADD CONSTRAINT corrections_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY corrections
    ADD CONSTRAINT corrections_reverts_fkey FOREIGN KEY (reverts) REFERENCES corrections(id);
ALTER TABLE ONLY credit_packs
    ADD CONSTRAINT credit_packs_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY customers
    ADD CONSTRAINT customers_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY domain_events
    ADD CONSTRAINT domain_events_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY features
    ADD CONSTRAINT features_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY idempotency_keys
    ADD CONSTRAINT idempotency_keys_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY ingest_batches
    ADD CONSTRAINT ingest_batches_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY invoice_lines
    ADD CONSTRAINT invoice_lines_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES invoices(id);
ALTER TABLE ONLY invoices
    ADD CONSTRAINT invoices_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id);
ALTER TABLE ONLY invoices
    ADD CONSTRAINT invoices_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY invoices
    ADD CONSTRAINT invoices_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES subscriptions(id);
ALTER TABLE ONLY meters
    ADD CONSTRAINT meters_feature_id_fkey FOREIGN KEY (feature_id) REFERENCES features(id) ON DELETE CASCADE;
ALTER TABLE ONLY meters
    ADD CONSTRAINT meters_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY organization_heads
    ADD CONSTRAINT organization_heads_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY payment_methods
    ADD CONSTRAINT payment_methods_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id);
ALTER TABLE ONLY payment_methods
    ADD CONSTRAINT payment_methods_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY plan_features
    ADD CONSTRAINT plan_features_feature_id_fkey FOREIGN KEY (feature_id) REFERENCES features(id);
ALTER TABLE ONLY plan_features
    ADD CONSTRAINT plan_features_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY plan_features
    ADD CONSTRAINT plan_features_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES plans(id);
ALTER TABLE ONLY plan_minimums
    ADD CONSTRAINT plan_minimums_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY plan_minimums
    ADD CONSTRAINT plan_minimums_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES plans(id);
ALTER TABLE ONLY plan_prices
    ADD CONSTRAINT plan_prices_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY plan_prices
    ADD CONSTRAINT plan_prices_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES plans(id);
ALTER TABLE ONLY plans
    ADD CONSTRAINT plans_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY purchases
    ADD CONSTRAINT purchases_credit_pack_id_fkey FOREIGN KEY (credit_pack_id) REFERENCES credit_packs(id);
ALTER TABLE ONLY purchases
    ADD CONSTRAINT purchases_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES invoices(id);
ALTER TABLE ONLY purchases
    ADD CONSTRAINT purchases_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY purchases
    ADD CONSTRAINT purchases_payment_method_id_fkey FOREIGN KEY (payment_method_id) REFERENCES payment_methods(id);
ALTER TABLE ONLY purchases
    ADD CONSTRAINT purchases_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES subscriptions(id);
ALTER TABLE ONLY simulations
    ADD CONSTRAINT simulations_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY subscriptions
    ADD CONSTRAINT subscriptions_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id);
ALTER TABLE ONLY subscriptions
    ADD CONSTRAINT subscriptions_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
ALTER TABLE ONLY subscriptions
    ADD CONSTRAINT subscriptions_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES plans(id);
ALTER TABLE ONLY subscriptions
    ADD CONSTRAINT subscriptions_price_id_fkey FOREIGN KEY (price_id) REFERENCES plan_prices(id);
ALTER TABLE ONLY transactions
    ADD CONSTRAINT transactions_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id);
ALTER TABLE ONLY transactions
    ADD CONSTRAINT transactions_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES invoices(id);
ALTER TABLE ONLY transactions
    ADD CONSTRAINT transactions_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations(id);
