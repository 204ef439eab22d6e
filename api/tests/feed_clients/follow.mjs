// Follows the feed by npm's `eventsource`, which connects again by itself, and prints each event as it came.
import { EventSource } from "eventsource";

const { API_URL, API_TOKEN, COUNT } = process.env;
const source = new EventSource(`${API_URL}/api/v1/events?after=start`, {
  fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, Authorization: `Bearer ${API_TOKEN}` } }),
});
let left = Number(COUNT);
// Waiting to connect again does not keep Node.js running.
setInterval(() => {}, 1000);
source.addEventListener("OrderCreated", ({ data }) => {
  console.log(data);
  left -= 1;
  if (left === 0) {
    source.close();
    process.exit(0);
  }
});
