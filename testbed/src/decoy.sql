-- The decoy: a second tenant in the database of every test, whose customers have the numbers that tests use, with orders of
-- which each amount ends in .13. A client of a test that is shown one fails: see `decoy.rs`.
--
-- Its orders are the oldest and the newest of all, so that they begin every page that forgets the tenant; their ids are far from
-- those that tests get. It has no events: positions in the log are what many tests count.

INSERT INTO tenants (slug, name) VALUES ('decoy', 'Decoy');

CREATE TEMPORARY TABLE decoy ON COMMIT DROP AS
SELECT (SELECT id FROM tenants WHERE slug = 'decoy') AS tenant_id, customer_id, product_id, at,
       (1::bigint << 40) - row_number() OVER (ORDER BY customer_id, at) AS id
FROM (SELECT generate_series(1, 200) UNION ALL SELECT generate_series(1000000, 1000009)) AS customers (customer_id),
     (VALUES (1002, '2020-02-02T10:00:00Z'::timestamptz), (1001, '2190-02-02T10:00:00Z'), (1, '2190-02-03T10:00:00Z'))
         AS orders (product_id, at);

INSERT INTO orders (id, tenant_id, customer_id, order_date, status, total_amount, version, created_at, updated_at)
SELECT id, tenant_id, customer_id, '2025-01-20', 'PENDING', 66.13, 1, at, at FROM decoy;

INSERT INTO order_lines (id, tenant_id, order_id, position, product_id, quantity, unit_price)
SELECT id, tenant_id, id, 0, product_id, 1, 66.13 FROM decoy;

-- References that tests use.
UPDATE orders o SET reference = (ARRAY['PO-1', 'PO 4711/α', 'first'])[1 + d.place]
FROM (SELECT id, (row_number() OVER (PARTITION BY customer_id ORDER BY id) - 1)::integer AS place FROM decoy) AS d WHERE o.id = d.id;

-- Of days that the log does not have.
INSERT INTO order_history
    (tenant_id, order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
SELECT tenant_id, id, 1, 'CREATED', '{"total_amount": {"from": null, "to": "66.13"}}', customer_id, customer_id, gen_random_uuid(), at
FROM decoy;

-- Its people have the addresses that tests use, and another role than theirs.
INSERT INTO accounts (tenant_id, customer_id, email, password_hash, role)
SELECT DISTINCT tenant_id, customer_id,
       CASE customer_id WHEN 1 THEN 'ada@example.com' WHEN 2 THEN 'bob@example.com' ELSE format('customer-%s@decoy.example', customer_id) END,
       'none', 'auditor'
FROM decoy WHERE customer_id <= 200;

-- Its customers have ended their sessions for good.
INSERT INTO ended_sessions (tenant_id, customer_id, generation, ended_at)
SELECT DISTINCT tenant_id, customer_id, 1000000, '2190-01-01T00:00:00Z'::timestamptz FROM decoy;
