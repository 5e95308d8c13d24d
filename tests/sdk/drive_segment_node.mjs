// Drives @segment/analytics-node as a server does, and prints what became of each call as JSON.
//
//   node drive_segment_node.mjs HOST WRITE_KEY [ROUNDS] [FLUSH_AT]
import { Analytics } from "@segment/analytics-node";

const [host, writeKey, rounds = "1", flushAt = "15"] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey, flushAt: Number(flushAt), flushInterval: 50 });

const requests = [];
const errors = [];
analytics.on("http_response", ({ status }) => requests.push(status));
analytics.on("error", (error) => errors.push(String(error.code ?? error)));

const done = [];
const settled = (resolve) => (error, context) =>
  resolve({
    type: context.event.type,
    messageId: context.event.messageId,
    failed: Boolean(error || context.failedDelivery()),
  });
const call = (method, event) =>
  done.push(new Promise((resolve) => analytics[method](event, settled(resolve))));

for (let round = 0; round < Number(rounds); round += 1) {
  const userId = `node-user-${round}`;
  call("identify", { userId, traits: { email: `node-${round}@example.com`, firstName: "Zoë" } });
  call("track", {
    userId,
    event: "Product Viewed",
    properties: { product_id: "sku-1", price: 12.5, currency: "EUR" },
  });
  call("page", { userId, name: "Home", properties: { path: "/" } });
  call("screen", { userId, name: "Basket" });
  call("group", { userId, groupId: "g-1", traits: { plan: "pro" } });
  call("alias", { userId, previousId: `node-before-${round}` });
}

const calls = await Promise.all(done);
await analytics.closeAndFlush({ timeout: 20_000 });
console.log(JSON.stringify({ calls, requests, errors }));
