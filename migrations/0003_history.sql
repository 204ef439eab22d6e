-- The record of every version of every order. It belongs to the worker and outlives the order:
-- there is no foreign key, and the customer is in the row so that the owner can still read it.

CREATE TABLE order_history (
    order_id     bigint      NOT NULL,
    version      bigint      NOT NULL CONSTRAINT order_history_version_positive CHECK (version > 0),
    action       text        NOT NULL CONSTRAINT order_history_action_known CHECK (action IN ('CREATED', 'UPDATED', 'DELETED')),
    -- Each changed field with its value before and after.
    changes      json        NOT NULL,
    customer_id  bigint      NOT NULL,
    performed_by bigint      NOT NULL,
    event_id     uuid        NOT NULL,
    occurred_at  timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT now(),
    -- Makes recording idempotent, and serves reading one order's history in order.
    PRIMARY KEY (order_id, version)
);

-- Events set aside, from every broker alike: unreadable, refused for good, or out of attempts.
CREATE TABLE dead_letters (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Null where the event could not even be parsed.
    event_id      uuid,
    event_type    text,
    order_id      bigint,
    version       bigint,
    -- As received; bytes because what cannot be parsed need not be text.
    body          bytea       NOT NULL,
    -- Which part gave up: a handler's name, `parse`, or `publish` for the relay.
    source        text        NOT NULL,
    reason        text        NOT NULL,
    attempts      integer     NOT NULL,
    broker        text        NOT NULL,
    failed_at     timestamptz NOT NULL DEFAULT now(),
    -- Set when an operator sent it again.
    redriven_at   timestamptz
);

-- One row per event, body and source: a redelivered dead letter raises its attempts instead of standing twice.
-- The hash bounds the size of the index entry.
CREATE UNIQUE INDEX dead_letters_once ON dead_letters (source, sha256(body));
-- Listing newest first, and by order.
CREATE INDEX dead_letters_by_time ON dead_letters (failed_at DESC, id DESC);
CREATE INDEX dead_letters_by_order ON dead_letters (order_id) WHERE order_id IS NOT NULL;

-- Orders whose cache entry could not be written while Redis was away. The worker notes the debt in the database,
-- so that it can acknowledge the event and go on, and pays it from the order as it then is.
CREATE TABLE cache_debts (
    order_id   bigint      PRIMARY KEY,
    -- The newest version that the entry must not be older than.
    version    bigint      NOT NULL,
    -- Oldest first.
    owed_since timestamptz NOT NULL DEFAULT now()
);
