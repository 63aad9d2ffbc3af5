-- Distinct values are numbered, and an hour keeps the set of its numbers as bits (docs/decisions/0013): counting
-- the values of a month is then a union of a few thousand short bit strings instead of millions of hashes.
SET LOCAL lock_timeout = '5s';

-- Every value a UNIQUE meter of a feature has met, and its number: 0, 1, 2, … per customer and feature. Versions of a
-- meter share the numbers, so that their sets unite.
CREATE TABLE distinct_values (
    customer_id uuid NOT NULL,
    feature_id  uuid NOT NULL,
    value_hash  bytea NOT NULL,             -- 16 bytes of the value
    number      int NOT NULL CHECK (number >= 0),
    PRIMARY KEY (customer_id, feature_id, value_hash),
    UNIQUE (customer_id, feature_id, number)
);

-- The values of one hour, 2,048 numbers to a row: bit n of block b is the value with number 2,048 b + n.
CREATE TABLE usage_sets (
    customer_id uuid NOT NULL,
    meter_id    uuid NOT NULL,
    hour        timestamptz NOT NULL,
    block       int NOT NULL,
    members     bit(2048) NOT NULL,
    PRIMARY KEY (customer_id, meter_id, hour, block)
) WITH (fillfactor = 75);

-- What was counted so far moves over. The old table goes at once: a program of before this migration that still
-- runs must fail to store a distinct value rather than store it where nobody looks any more.
LOCK TABLE usage_values IN ACCESS EXCLUSIVE MODE;
INSERT INTO distinct_values (customer_id, feature_id, value_hash, number)
SELECT u.customer_id, m.feature_id, u.value_hash,
       row_number() OVER (PARTITION BY u.customer_id, m.feature_id ORDER BY min(u.hour), u.value_hash) - 1
  FROM usage_values u JOIN meters m ON m.id = u.meter_id
 GROUP BY u.customer_id, m.feature_id, u.value_hash;
INSERT INTO usage_sets (customer_id, meter_id, hour, block, members)
SELECT u.customer_id, u.meter_id, u.hour, d.number / 2048,
       bit_or(set_bit(B'0'::bit(2048), mod(d.number, 2048), 1))
  FROM usage_values u JOIN meters m ON m.id = u.meter_id
  JOIN distinct_values d ON d.customer_id = u.customer_id AND d.feature_id = m.feature_id
                        AND d.value_hash = u.value_hash
 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4;
DROP TABLE usage_values;
