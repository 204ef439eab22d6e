// Creates, changes and reads an order by a client whose types openapi-typescript has generated into api.ts.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths } from "./api.ts";

const client = createClient<paths>({
  baseUrl: process.env.API_URL ?? "",
  headers: { Authorization: `Bearer ${process.env.API_TOKEN}` },
});

const created = await client.POST("/api/v1/orders", {
  params: { header: { "Idempotency-Key": "typescript" } },
  body: {
    order_date: "2025-01-20",
    lines: [{ product_id: 1001, quantity: 2, unit_price: "25.50" }],
  },
});
assert.equal(created.response.status, 201);
assert.ok(created.data);
const { id, total_amount, lines } = created.data;
assert.equal(total_amount, "51.00");
assert.equal(lines[0]?.unit_price, "25.50");

const params = { path: { id } };
const changed = await client.PATCH("/api/v1/orders/{id}", {
  params: { ...params, header: { "If-Match": '"1"' } },
  body: { status: "CONFIRMED" },
});
assert.equal(changed.data?.status, "CONFIRMED");
assert.equal(changed.data?.version, 2);

const read = await client.GET("/api/v1/orders/{id}", { params });
assert.deepEqual(read.data, changed.data);
assert.equal(read.response.headers.get("ETag"), '"2"');

const listed = await client.GET("/api/v1/orders", { params: { query: { status: "CONFIRMED", size: 1 } } });
assert.equal(listed.data?.orders[0]?.id, id);

const missing = await client.GET("/api/v1/orders/{id}", { params: { path: { id: id + 1_000_000 } } });
assert.equal(missing.error?.code, "not_found");

console.log("a generated TypeScript client created, changed and read an order");
