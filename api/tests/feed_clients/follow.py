"""Follows the feed by PyPI's `httpx-sse`, from the last id after each interruption, and prints each event as it came."""

import os
import time

import httpx
from httpx_sse import connect_sse

url = f"{os.environ['API_URL']}/api/v1/events"
headers = {"Authorization": f"Bearer {os.environ['API_TOKEN']}"}
left = int(os.environ["COUNT"])
last = ""
with httpx.Client(timeout=httpx.Timeout(5, read=20)) as client:
    while left > 0:
        try:
            with connect_sse(client, "GET", url, headers=headers | ({"Last-Event-ID": last} if last else {})) as source:
                for event in source.iter_sse():
                    last = event.id or last
                    if event.event == "OrderCreated":
                        print(event.data, flush=True)
                        left -= 1
                    if left == 0:
                        break
        except httpx.HTTPError:
            time.sleep(0.1)
