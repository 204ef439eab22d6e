-- Ending all sessions of a customer at once. A customer without a row has never done so.

CREATE TABLE session_generations (
    -- Also of customers who have no account here: those of the test login.
    customer_id bigint      PRIMARY KEY,
    -- Sessions that began in an earlier generation are over. Customers begin in generation 0.
    generation  bigint      NOT NULL,
    -- When the last generation ended, by the API's clock: for sessions from before there were generations, whose ids tell
    -- only when they began.
    ended_at    timestamptz NOT NULL
);
