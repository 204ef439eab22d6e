-- Answers kept for repeated requests. Written in the transaction of the change itself, so that
-- the key, the change and its event stand or fall together.

CREATE TABLE idempotency_keys (
    customer_id  bigint      NOT NULL,
    key          text        NOT NULL,
    -- SHA-256 of method, route, path and the canonical body: the same key with another request is refused.
    request_hash bytea       NOT NULL,
    status       smallint    NOT NULL,
    -- The answer as it was sent: headers that belong to it, then the body.
    headers      json        NOT NULL,
    body         bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Keys belong to the customer, not to the token.
    PRIMARY KEY (customer_id, key)
);

-- Removing expired keys in small batches without a scan.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
