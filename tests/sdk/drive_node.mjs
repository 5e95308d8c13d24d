// Drives one of the SDKs for Node as a server does, and prints what it was asked to send as JSON.
//
//   node drive_node.mjs SDK URL WRITE_KEY ROUNDS FLUSH_AT PAUSE_MS
const [sdk, url, writeKey, rounds, flushAt, pauseMs] = process.argv.slice(2);

const requests = [];
const errors = [];
const waiting = [];

async function segment() {
  const { Analytics } = await import("@segment/analytics-node");
  const analytics = new Analytics({ host: url, writeKey, flushAt: Number(flushAt), flushInterval: 50 });
  analytics.on("http_response", ({ status }) => requests.push(status));
  analytics.on("error", (error) => errors.push(String(error.code ?? error)));
  return {
    call: (type, event) =>
      waiting.push(
        new Promise((resolve) =>
          analytics[type](event, (error, context) => {
            if (error || context.failedDelivery()) errors.push("not delivered");
            resolve();
          }),
        ),
      ),
    close: async () => {
      await Promise.all(waiting);
      await analytics.closeAndFlush({ timeout: 20_000 });
    },
  };
}

async function rudderstack() {
  const { default: Analytics } = await import("@rudderstack/rudder-sdk-node");
  const analytics = new Analytics(writeKey, {
    dataPlaneUrl: url, flushAt: Number(flushAt), flushInterval: 50, gzip: true,
    retryCount: 240, axiosRetryConfig: { retryDelay: () => 250 },
    errorHandler: (error) => errors.push(String(error.response?.status ?? error.code ?? error)),
  });
  return {
    call: (type, event) => waiting.push(new Promise((resolve) => analytics[type](event, resolve))),
    close: async () => {
      await new Promise((resolve) => analytics.flush(resolve));
      await Promise.all(waiting);
    },
  };
}

async function jitsu() {
  const { jitsuAnalytics } = await import("@jitsu/js");
  const analytics = jitsuAnalytics({ host: url, writeKey });
  const past = (promise) => waiting.push(promise.catch((error) => errors.push(String(error))));
  return {
    call: (type, event) => {
      if (type === "identify") past(analytics.identify(event.userId, event.traits));
      if (type === "track") past(analytics.track(event.event, event.properties));
      if (type === "page") past(analytics.page(event.name, event.properties));
      if (type === "group") past(analytics.group(event.groupId, event.traits));
    },
    close: () => Promise.all(waiting),
  };
}

const { call, close } = await { segment, rudderstack, jitsu }[sdk]();
for (let round = 0; round < Number(rounds); round += 1) {
  const userId = `node-user-${round}`;
  call("identify", { userId, traits: { email: `node-${round}@example.com`, firstName: "Zoë" } });
  call("track", { userId, event: "Product Viewed", properties: { product_id: "sku-1", price: 12.5, currency: "EUR" } });
  call("page", { userId, name: "Home", properties: { path: "/" } });
  call("screen", { userId, name: "Basket" });
  call("group", { userId, groupId: "g-1", traits: { plan: "pro" } });
  call("alias", { userId, previousId: `node-before-${round}` });
  await new Promise((resolve) => setTimeout(resolve, Number(pauseMs)));
}
await close();
console.log(JSON.stringify({ requests, errors }));
process.exit(0);
