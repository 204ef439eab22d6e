-- What else makes two requests with one key the same: SHA-256 of the caller's role and the preconditions. Null where a
-- version that did not know the column stored the answer. It stands apart from `request_hash`, so that such a version,
-- beside this one in a rolling upgrade, still recognises the requests that this one has answered.
ALTER TABLE idempotency_keys ADD COLUMN context_hash bytea;

-- Finds the owner and the last version of an order that is gone, before the worker has recorded its deletion. Partial:
-- only deletions pay for it.
CREATE INDEX outbox_deletions ON outbox (order_id) WHERE event_type = 'OrderDeleted';
