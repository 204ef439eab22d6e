"""Creates, changes and reads an order by the client that openapi-python-client has generated."""

import datetime
import os
from http import HTTPStatus

from orders_client import AuthenticatedClient
from orders_client.api.orders import create_order, get_order, list_orders, patch_order
from orders_client.models import CreateOrder, LineInput, Order, OrderStatus, UpdateOrder

client = AuthenticatedClient(base_url=os.environ["API_URL"], token=os.environ["API_TOKEN"])

line = LineInput(product_id=1001, quantity=2, unit_price="25.50")
created = create_order.sync_detailed(
    client=client,
    body=CreateOrder(order_date=datetime.date(2025, 1, 20), lines=[line]),
    idempotency_key="python",
)
assert created.status_code == HTTPStatus.CREATED, created
assert isinstance(created.parsed, Order), created
order = created.parsed
assert order.total_amount == "51.00", order
assert order.lines[0].unit_price == "25.50", order

changed = patch_order.sync(order.id, client=client, body=UpdateOrder(status=OrderStatus.CONFIRMED), if_match='"1"')
assert isinstance(changed, Order), changed
assert (changed.status, changed.version) == (OrderStatus.CONFIRMED, 2), changed

read = get_order.sync_detailed(order.id, client=client)
assert read.parsed == changed, read
assert read.headers["ETag"] == '"2"', read

listed = list_orders.sync(client=client, status=OrderStatus.CONFIRMED, size=1)
assert listed.orders[0].id == order.id, listed

missing = get_order.sync_detailed(order.id + 1_000_000, client=client)
assert missing.status_code == HTTPStatus.NOT_FOUND, missing

print("a generated Python client created, changed and read an order")
