// The preview page: sends what a shop's pages would send, and shows the email that answers.
// An event goes the way every SDK's goes: POST /v1/track with the public write key.

const byId = (id) => document.getElementById(id);
const LOOKS = ["width", "scheme", "images", "part"];
const ASKED_MAX = 400; // asks until an event shows; one takes about a millisecond
const RECENT_MAX = 30;

const state = {
  shop: null,
  shopper: "",
  email: null,
  category: "",
  recent: [],
  busy: Promise.resolve(),
};

// -- the shopper

function newShopper() {
  state.shopper = `preview-${crypto.randomUUID()}`;
  state.recent = [];
  byId("consent").checked = true;
  for (const item of document.querySelectorAll("#items .seen")) item.classList.remove("seen");
  showFigures();
}

function consent() {
  const permitted = byId("consent").checked;
  return Object.fromEntries(state.shop.consent.map((category) => [category, permitted]));
}

function track(event, properties) {
  return {
    type: "track", event, properties, messageId: crypto.randomUUID(), anonymousId: state.shopper,
    timestamp: new Date().toISOString(), context: { consent: { categoryPreferences: consent() } },
  };
}

async function send(event) {
  const answer = await fetch("/v1/track", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Basic ${btoa(`${state.shop.write_key}:`)}` },
    body: JSON.stringify(event),
  });
  return { status: answer.status, body: await answer.json() };
}

// One event at a time, so that what is measured is its own way to the email.
function act(event, properties) {
  const clicked = performance.now();
  state.busy = state.busy.then(async () => {
    const before = state.email?.known_at ?? -1;
    const { status, body } = await send(track(event, properties));
    const accepted = performance.now();
    if (status !== 200) return note(`${body.message ?? "The event was refused."} ${body.fix ?? ""}`);
    if (body.rejected?.length) return note(`Refused: ${body.rejected[0].what} (${body.rejected[0].path})`);
    if (body.discarded) {
      note(byId("consent").checked
        ? `The project does not declare “${event}”, so it is not kept.`
        : "Not kept: this shopper permits nothing.");
      return show(await readEmail());
    }
    note("");
    for (let asked = 0; asked < ASKED_MAX; asked += 1) {
      const email = await readEmail();
      if (email.known_at > before) {
        show(email);
        return remember(performance.now() - clicked, accepted - clicked);
      }
    }
    note("The event is on disk, and the email does not reflect it yet: is the engine catching up?");
  }).catch((error) => note(`The engine does not answer (${error.message}).`));
  return state.busy;
}

// -- figures

function remember(total, accepted) {
  state.recent.push(total);
  if (state.recent.length > RECENT_MAX) state.recent.shift();
  showFigures(total, accepted);
}

function showFigures(total, accepted) {
  const sorted = [...state.recent].sort((a, b) => a - b);
  byId("latency").textContent = total === undefined ? "–" : `${total.toFixed(1)} ms`;
  byId("latency").dataset.ms = total ?? "";
  byId("accepted").textContent = accepted === undefined ? "–" : `${accepted.toFixed(1)} ms`;
  byId("median").textContent = sorted.length ? `${sorted[sorted.length >> 1].toFixed(1)} ms` : "–";
  drawSpark();
}

function drawSpark() {
  const canvas = byId("spark");
  const pen = canvas.getContext("2d");
  const most = Math.max(...state.recent, 1);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--tint");
  state.recent.forEach((ms, place) => {
    const high = Math.max(2, (ms / most) * canvas.height);
    pen.fillRect(place * 4, canvas.height - high, 3, high);
  });
}

// -- the email

async function readEmail() {
  const asked = new URLSearchParams({ campaign: byId("campaign").value, anonymous_id: state.shopper });
  const answer = await fetch(`/preview/api/email?${asked}`);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.message ?? answer.status);
  return body;
}

function look(name) {
  return document.querySelector(`input[name="${name}"]:checked`).value;
}

// A frame can't be told which scheme it is looked at in; so the media query is answered in its source.
function dressed(html) {
  const dark = look("scheme") === "dark";
  let page = html.replace(/\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)/gi,
    (_, scheme) => ((scheme.toLowerCase() === "dark") === dark ? "(min-width: 0)" : "(max-width: 0)"));
  const head = [`<base target="_blank">`];
  if (look("images") === "blocked") {
    head.push(`<meta http-equiv="Content-Security-Policy" content="img-src 'none'">`);
  }
  page = page.replace(/<meta name="(supported-)?color-schemes?"[^>]*>/gi, "");
  return page.replace(/<head([^>]*)>/i, (tag) => tag + head.join(""));
}

function show(email) {
  const changed = state.email && state.email.html !== email.html;
  state.email = email;
  const asText = look("part") === "text";
  byId("subject").textContent = email.subject;
  byId("email").hidden = asText;
  byId("text").hidden = !asText;
  byId("text").textContent = email.text;
  byId("email").srcdoc = dressed(email.html);
  const client = byId("client");
  client.dataset.width = look("width");
  client.dataset.scheme = look("scheme");
  client.dataset.knownAt = email.known_at;
  if (changed) {
    client.classList.remove("changed");
    void client.offsetWidth; // starts the animation again
    client.classList.add("changed");
  }
  showSize(email);
  byId("served").textContent = email.reason ? `${email.served}: ${email.reason}` : email.served;
  byId("why").replaceChildren(...email.slots.map(whySlot));
}

function showSize(email) {
  const meter = byId("meter");
  const { warn_bytes: warn, refuse_bytes: refuse } = state.shop;
  Object.assign(meter, { max: refuse * 1.1, low: warn, high: refuse, optimum: 0, value: email.bytes });
  const verdict = { ok: "shown whole", warn: "close to being clipped", refuse: "clipped by Gmail" }[email.verdict];
  byId("bytes").textContent = `${(email.bytes / 1000).toFixed(1)} of ${refuse / 1000} kB, ${verdict}`;
}

function whySlot(slot) {
  const part = document.createElement("article");
  const title = document.createElement("h3");
  title.textContent = slot.slot;
  const list = document.createElement("ul");
  for (const text of slot.lines.slice(1)) {
    const line = document.createElement("li");
    line.textContent = text.trim();
    if (text.startsWith("    ")) line.className = "deep";
    if (slot.shows.some((key) => text.startsWith("  chosen") && text.includes(` ${key} `))) line.className = "chosen";
    list.append(line);
  }
  part.append(title, list);
  return part;
}

// -- the shop

function card(item) {
  const entry = document.createElement("li");
  entry.dataset.item = item.id;
  const properties = { product_id: item.id, name: item.title, category: item.category || undefined,
    price: item.price ? Number(item.price) : undefined, currency: item.currency || undefined };
  const lookAt = button("", "look", () => { entry.classList.add("seen"); return act("Product Viewed", properties); });
  const picture = document.createElement(item.image_url ? "img" : "span");
  if (item.image_url) Object.assign(picture, { src: item.image_url, alt: "", loading: "lazy" });
  else picture.className = "blank";
  lookAt.append(picture, span("title", item.title), span("price", money(item)));
  const acts = document.createElement("div");
  acts.className = "acts";
  const add = button("Add", "", () => act("Product Added", { ...properties, quantity: 1 }));
  add.setAttribute("aria-label", `Add ${item.title} to the cart`);
  const buy = button("Buy", "", () => act("Order Completed", {
    order_id: `preview-${crypto.randomUUID()}`, total: properties.price, currency: properties.currency,
    products: [{ ...properties, quantity: 1 }],
  }));
  buy.setAttribute("aria-label", `Buy ${item.title}`);
  acts.append(add, buy);
  entry.append(lookAt, acts);
  return entry;
}

function money(item) {
  if (!item.price || !item.currency) return "";
  return new Intl.NumberFormat(undefined, { style: "currency", currency: item.currency }).format(Number(item.price));
}

function button(text, kind, onClick) {
  const made = document.createElement("button");
  Object.assign(made, { type: "button", textContent: text, className: kind });
  made.addEventListener("click", onClick);
  return made;
}

function span(kind, text) {
  const made = document.createElement("span");
  made.className = kind;
  made.textContent = text;
  return made;
}

function note(text) {
  byId("note").textContent = text;
}

function showItems() {
  const shown = state.shop.items.filter((item) => !state.category || item.category === state.category);
  byId("items").replaceChildren(...shown.map(card));
}

function showCategories() {
  const names = state.shop.categories.length > 1 ? ["", ...state.shop.categories] : [];
  byId("categories").replaceChildren(...names.map((name) => {
    const made = button(name || "all", "", () => { state.category = name; showCategories(); showItems(); });
    made.setAttribute("aria-pressed", String(name === state.category));
    return made;
  }));
}

async function start() {
  state.shop = await (await fetch("/preview/api/shop")).json();
  byId("shop-name").textContent = state.shop.name;
  byId("campaign").replaceChildren(...state.shop.campaigns.map((name) => new Option(name, name)));
  showCategories();
  showItems();
  newShopper();
  if (!state.shop.write_key) note("No source of kind `browser` has a write key: clicks cannot be sent.");
  else if (!state.shop.items.length) note("The shop has no items yet: penstock load FILE --as items.");
  if (state.shop.campaigns.length) show(await readEmail());
  else note("No campaign names a template, so there is no email to show.");
  document.body.dataset.ready = "true";
}

byId("fresh").addEventListener("click", async () => {
  newShopper();
  note("");
  show(await readEmail());
});
byId("campaign").addEventListener("change", async () => show(await readEmail()));
byId("consent").addEventListener("change", () => act("Segment Consent Preference Updated", {}));
for (const name of LOOKS) {
  for (const input of document.querySelectorAll(`input[name="${name}"]`)) {
    input.addEventListener("change", () => state.email && show(state.email));
  }
}
start().catch((error) => note(`The preview could not start: ${error.message}`));
