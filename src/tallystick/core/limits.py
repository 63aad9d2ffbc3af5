"""Every limit, by name, in one place. Sizes in bytes, lengths in characters, times in seconds."""

from datetime import timedelta
from typing import Final

HEAD_BYTES_MAX: Final = 64 * 1024
HEAD_WITHIN_S: Final = 30
"""From the opening of a connection, or the first byte of a request, to the end of its head."""
BODY_SILENT_S: Final = 60
"""Between two pieces of a body."""
BODY_BYTES_MAX: Final = 1024 * 1024
EVENTS_PER_BATCH_MAX: Final = 100
BULK_BODY_BYTES_MAX: Final = 16 * 1024 * 1024
EVENTS_PER_BULK_MAX: Final = 10_000
EVENTS_PER_SLICE: Final = 1_000
"""Of a bulk or a stream: so many are decoded and stored together, and others may come in between."""
STREAM_LINE_BYTES_MAX: Final = 64 * 1024
STREAM_QUEUES_S_MAX: Final = 30
"""How long a slice of a stream waits for room in the queue before its lines are refused."""
STREAM_UNREAD_S_MAX: Final = 30
"""How long an answer may wait for its reader before the connection is dropped."""
INFLATED_BYTES_AT_ONCE: Final = 64 * 1024
CUSTOMERS_PER_BATCH_MAX: Final = 100

CODE_CHARS_MAX: Final = 100
CUSTOMER_REFERENCE_CHARS_MAX: Final = 200
EXTERNAL_ID_CHARS_MAX: Final = 100
EMAIL_CHARS_MAX: Final = 200
NAME_CHARS_MAX: Final = 200
TEXT_CHARS_MAX: Final = 2_000
EVENT_KEY_CHARS_MAX: Final = 200
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
PROPERTIES_PER_EVENT_MAX: Final = 50
PROPERTY_NAME_CHARS_MAX: Final = 100
PROPERTY_VALUE_CHARS_MAX: Final = 1_000
PROPERTY_LEVELS_MAX: Final = 20
"""Of objects and lists in what a CloudEvent's data says under one name."""
FILTERS_PER_METER_MAX: Final = 20
METADATA_BYTES_MAX: Final = 16 * 1024

INTEGER_DIGITS_MAX: Final = 20
FRACTION_DIGITS_MAX: Final = 12
AMOUNT_MINOR_MAX: Final = 10**15
"""A price above a million million is a typing error, not a price."""
CREDITS_MAX: Final = 10**12
"""In one pack, or by one adjustment: more is a typing error."""

TIERS_MAX: Final = 100
PREVIEW_AMOUNTS_MAX: Final = 10_000
CORRECTED_EVENTS_MAX: Final = 1_000
BASIS_POINTS_MAX: Final = 10_000
"""More than the whole of an amount is a typing error, not a share."""

MARGIN_BPS_MAX: Final = 1_000_000
"""A hundred times the cost: more on top of what tokens cost is a typing error."""
MODEL_CHARS_MAX: Final = 200
TOKENS_PER_EVENT_MAX: Final = 10**12
TOKEN_PRICE_MAX: Final = 10**6
"""Major units per million tokens. With the two above, a call's cost fits a bigint of rate units."""
MODEL_NAMES_KEPT_MAX: Final = 10_000
"""Per process: names of models as callers write them, with what they were found to mean."""
NEAREST_NAMES_SHOWN: Final = 5

SIMULATION_MONTHS_MAX: Final = 36
SIMULATION_PERIODS_MAX: Final = 20_000
SIMULATION_CUSTOMERS_MAX: Final = 5_000
SIMULATION_CHANGES_MAX: Final = 100
"""Plan features that one simulation puts otherwise."""

FUTURE_MAX: Final = timedelta(hours=1)
"""How far ahead of our clock an event may say it happened: clients' clocks differ (ruling 5)."""

SUMMARY_WINDOWS_MAX: Final = 1_000
SUMMARY_GROUPS_MAX: Final = 1_000
SUMMARY_CELLS_MAX: Final = 20_000
"""Groups over all windows of one usage summary."""
SUMMARY_GROUP_BY_MAX: Final = 3
SUMMARY_DEFAULT: Final = timedelta(days=30)
"""What a usage summary covers when nobody says and the customer has no usage period."""
YEAR_MAX: Final = 9000
"""Of an instant in a query: beyond it calendars run out."""

RATE_LIMIT_MAX: Final = 1_000_000
"""Requests a second per API key: what an operator may set, far beyond what a machine answers."""
RATE_BURST_MAX: Final = 2 * RATE_LIMIT_MAX
RATE_BUCKETS_KEPT_MAX: Final = 100_000
"""Per process: so many keys may be short of their full rate at once before the first are let off."""

PAGE_SIZE: Final = 25
PAGE_SIZE_MAX: Final = 100
IDEMPOTENCY_KEEP: Final = timedelta(hours=24)
PURCHASE_RETRY_AFTER: Final = timedelta(minutes=1)
"""When a purchase that was neither paid nor declined is asked about again."""
GRACE_LIVE: Final = timedelta(hours=1)
"""Between a period's end and its invoice, so that what is a little late is still in it (ruling 2)."""
GRACE_MAX: Final = timedelta(days=7)
DUE_AFTER: Final = timedelta(days=14)
CLOCK_ADVANCE_DAYS_MAX: Final = 3_660

ROWS_PER_COMMIT_MAX: Final = 4000
"""Room for some bulks: a customer's rollup is written once for all of them."""
ROWS_AT_LENGTH_MAX: Final = 1000
"""Of those that must be judged at length: nobody else has their turn meanwhile, so more are halved."""
ROWS_PER_CHUNK_MAX: Final = 1600
"""Of a file or a queue, one transaction: it holds what others wait for."""
ROWS_QUEUED_MAX: Final = 20_000
"""Beyond this the answer is 503 with Retry-After, before memory grows."""
READY_WITHIN_S: Final = 2
"""By then `/health/ready` has answered, whatever the database does."""
MESSAGES_PER_FETCH: Final = 1_000
REDELIVERED_AFTER_S_MAX: Final = 60
"""Of a message from a queue that may be taken later."""
CHECKS_PER_READ_MAX: Final = 200
CHECKS_QUEUED_MAX: Final = 10_000
CLOSES_PER_CLAIM: Final = 200
CLOSES_PER_LOOK: Final = 10 * CLOSES_PER_CLAIM
SETS_AT_ONCE: Final = 2  # of periods to close
RESERVATIONS_PER_SWEEP: Final = 1_000
RESERVATION_DEFAULT: Final = timedelta(seconds=300)
RESERVATION_MAX: Final = timedelta(days=1)
"""How long a reservation may hold (ruling 27)."""
LATE_PER_CLAIM: Final = 200
PURCHASES_PER_CLAIM: Final = 200
KEY_GENERATION_MB: Final = 256
"""Rows and index of the open generation of keys, more than a million of them: its index stays in memory, and is written
anew after a checkpoint in seconds. Smaller ones are more of them: each adds to what a key is asked for (decision 24)."""
CHANGES_KEPT: Final = 10_000
"""Per organization, for processes that catch up with what changed."""
