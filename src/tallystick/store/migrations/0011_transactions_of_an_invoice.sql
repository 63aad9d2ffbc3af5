-- What was paid for an invoice is asked for by the invoice, whenever one is verified.
SET LOCAL lock_timeout = '5s';

CREATE INDEX transactions_of_invoice ON transactions (invoice_id) WHERE invoice_id IS NOT NULL;
