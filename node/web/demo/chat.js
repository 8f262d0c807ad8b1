// The chat page of development mode. Everything that others say reaches the page as text, never as markup.
//
// A room is the group "room:NAME". Its members send JSON objects {"room": NAME, "type": …}, the same ones as "imctl chat":
//
//   join, move   to the group: came in, came back over another node; node, addr say which, before the one it was
//   here         to one who joined, moved or asked: I am in this room too; node, addr
//   ask          to one of whom nothing was heard for long: still here?
//   say          to the group: text
//   typing       to the group, ack none, every two seconds at most
//   leave        to the group
//
// A dot says who is online, whether in the room or not. Who vanishes without a word is found out by ask: the cluster answers
// "offline" only when it is true.

import { Client, codes } from "/v1/imroute.js";

const TYPING_EVERY = 2_000;
const TYPING_SHOWN = 4_000;
const ASK_AFTER = 30_000; // of silence
const ASK_EVERY = 10_000;
const ASK_AT_ONCE = 5;
const MAX_PEOPLE = 500;
const MAX_LINES = 500;
const MAX_TEXT = 4_000;

const $ = (id) => document.getElementById(id);

let nodes = []; // as the cluster told last
let room = null; // the one we are in

// ---- what the page shows ----------------------------------------------------------------------------------------------

function element(tag, cls, text) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}

function face(name) {
  const e = element("span", "face", [...name][0]);
  let hash = 0;
  for (const c of name) hash = (hash * 31 + c.codePointAt(0)) % 9973;
  e.style.setProperty("--hue", Math.round((hash * 137.5) % 360)); // the golden angle keeps neighbours apart
  e.ariaHidden = "true";
  return e;
}

function line(e) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.append(e);
  while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
  if (atEnd || e.classList.contains("mine")) log.scrollTop = log.scrollHeight;
  return e;
}

const note = (text, cls = "") => line(element("li", `note ${cls}`.trim(), text));

function message(from, node, text, { mine = false, direct = false } = {}) {
  const e = element("li", `message${mine ? " mine" : ""}${direct ? " private" : ""}`);
  const head = element("div", "head");
  const time = element("time", "", new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  if (!mine) head.append(element("b", "", from));
  if (node) head.append(element("span", "tag", node));
  if (direct) head.append(element("span", "", "to you alone"));
  head.append(time);
  e.append(face(from), head, element("div", "bubble", text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text));
  return line(e);
}

function showPeople() {
  const list = [...room.people.values()].sort((a, b) => b.me - a.me || a.name.localeCompare(b.name));
  $("count").textContent = list.length;
  $("people").replaceChildren(
    ...list.map((p) => {
      const li = element("li");
      const online = p.me ? true : p.online;
      li.title = `${p.name}${p.addr ? ` at ${p.node}, ${p.addr}` : ""}${online === null ? "" : online ? " · online" : " · offline"}`;
      li.dataset.online = String(online);
      const f = face(p.name);
      f.append(element("i"));
      li.append(f, element("span", "who", p.me ? `${p.name} (you)` : p.name));
      if (p.node) li.append(element("span", "tag", p.node));
      return li;
    }),
  );
}

function showTyping() {
  const now = Date.now();
  const names = [...room.people.values()].filter((p) => p.typing > now).map((p) => p.name);
  $("typing").textContent =
    names.length === 0 ? "" : names.length === 1 ? `${names[0]} is typing…` : names.length < 4 ? `${names.join(", ")} are typing…` : "Several people are typing…";
}

function showStatus(kind, text) {
  $("status").dataset.kind = kind;
  $("status-text").textContent = text;
  $("status").title = text;
}

function showNodes() {
  const options = (chosen) =>
    nodes.map((n) => {
      const o = element("option", "", n.up ? n.name : `${n.name} (down)`);
      o.value = n.addr;
      o.disabled = !n.up;
      o.selected = n.addr === chosen;
      return o;
    });
  const usable = (n) => n.up && n.addr;
  $("first-node").replaceChildren(...options($("first-node").value || nodes.find((n) => n.here && usable(n))?.addr));
  if (room) $("node").replaceChildren(...options(room.addr));
}

/** Asks the node that this page came from, or, should that be gone, goes on with what is known. */
async function loadNodes() {
  try {
    const r = await fetch("/demo/nodes.json", { signal: AbortSignal.timeout(2_000) });
    if (r.ok) nodes = (await r.json()).filter((n) => n.addr);
  } catch {
    for (const n of nodes) if (n.here) n.up = false;
  }
  showNodes();
}

const nameOf = (url) => {
  const host = new URL(url).host;
  return nodes.find((n) => n.addr === host)?.name ?? host;
};

// ---- a room -----------------------------------------------------------------------------------------------------------

class Room {
  people = new Map();
  node = "";
  addr = "";
  lost = "";
  typed = 0;
  timers = [];

  constructor(me, name, addrs) {
    this.me = me;
    this.name = name;
    this.group = `room:${name}`;
    this.client = new Client({ client: me, addrs, groups: [this.group], background: true });
    this.client.on("state", (s) => this.state(s));
    this.client.on("message", (m) => this.hear(m));
    this.client.on("left", (l) => note(`You are not in the room any more: ${l.error.message}`, "bad"));
  }

  async enter() {
    await this.client.connect({ signal: AbortSignal.timeout(20_000) });
    this.timers.push(setInterval(() => this.askTheSilent(), ASK_EVERY), setInterval(showTyping, 500));
  }

  put(type, more, options) {
    const body = JSON.stringify({ room: this.name, type, ...more });
    return this.client.send(this.group, body, { kind: "group", ack: "none", ...options });
  }

  tell(to, type, more, options) {
    return this.client.send(to, JSON.stringify({ room: this.name, type, ...more }), { ack: "none", ...options });
  }

  get where() {
    return { node: this.node, addr: this.addr };
  }

  state(s) {
    if (s.kind === "connected") {
      const before = this.node;
      this.node = s.node;
      this.addr = new URL(s.addr).host;
      this.lost = "";
      this.note(this.me, this.where).me = true;
      showStatus("connected", `connected to ${s.node} (${this.addr}) · epoch ${s.epoch}`);
      // Acknowledged: all who came in before are to hear it, whichever node knows of them by now.
      if (before === "") this.put("join", this.where, { ack: "owner" }).catch(() => {});
      else {
        note(before === s.node ? `You are back at ${s.node}` : `You moved from ${before} to ${s.node}`, "moved");
        this.put("move", { ...this.where, before }).catch(() => {});
      }
      showPeople();
    } else if (s.kind === "waiting") {
      showStatus("moving", `${nameOf(s.addr)} waits until your former node's lease is over, ${Math.ceil(s.leftMs / 1000)} s at most`);
    } else if (s.kind === "connecting") {
      showStatus("moving", this.lost ? `${this.lost} was lost, trying ${nameOf(s.addr)}…` : `connecting to ${nameOf(s.addr)}…`);
    } else if (s.retrying) {
      if (s.code === codes.superseded || (s.code === codes.draining && s.afterMs === 0)) return showStatus("moving", "moving to another node…"); // our own next session took over
      if (this.node && !this.lost) {
        this.lost = this.node;
        note(`The connection to ${this.node} was lost (${s.reason})`, "bad");
      }
      const text = s.code === codes.protocol_error ? s.text : this.lost ? `${this.lost} was lost, looking for another node…` : "connecting…";
      showStatus("moving", text);
    } else {
      showStatus("closed", s.code === codes.replaced ? `somebody else came in as ${this.me}` : `closed: ${s.text || s.reason}`);
      $("text").disabled = true;
    }
    loadNodes();
  }

  /** Notes what was heard of somebody and returns what is known. */
  note(name, more = {}) {
    let p = this.people.get(name);
    if (!p) {
      if (this.people.size >= MAX_PEOPLE) this.forget(this.people.keys().next().value);
      this.people.set(name, (p = { name, node: "", addr: "", me: false, online: null, typing: 0, asked: 0 }));
      if (name !== this.me) this.client.watch(name, (s) => this.presence(s)).catch(() => {}); // without it there is no dot
    }
    p.heard = Date.now();
    p.asked = 0;
    for (const k of ["node", "addr"]) if (typeof more[k] === "string" && more[k]) p[k] = more[k].slice(0, 80);
    return p;
  }

  presence(s) {
    const p = this.people.get(s.client);
    if (!p || p.online === s.online) return;
    p.online = s.online;
    showPeople();
  }

  forget(name) {
    this.client.unwatch(name);
    return this.people.delete(name);
  }

  gone(name, why) {
    if (!this.forget(name)) return;
    note(why);
    showPeople();
    showTyping();
  }

  hear(m) {
    if (m.from === this.me) return; // a group's message comes back to its sender
    const direct = m.group !== this.group;
    let f;
    try {
      f = JSON.parse(m.text);
    } catch {
      f = null;
    }
    if (f === null || typeof f !== "object" || f.room !== this.name || typeof f.type !== "string") {
      if (direct && f?.room !== undefined) return; // of another room
      return void message(m.from, this.people.get(m.from)?.node, m.text, { direct });
    }
    const known = this.people.has(m.from);
    const at = this.people.get(m.from)?.node;
    let wrote = false;
    const p = f.type === "leave" || f.type === "ask" ? null : this.note(m.from, f);
    switch (f.type) {
      case "join":
        note(`${m.from} ${known ? "came in again" : "came in"}${p.node ? ` (${p.node}, ${p.addr})` : ""}`);
        this.tell(m.from, "here", this.where).catch(() => {});
        break;
      case "move":
        note(f.before === f.node ? `${m.from} is back at ${p.node}` : `${m.from} moved from ${String(f.before).slice(0, 80)} to ${p.node}`, "moved");
        this.tell(m.from, "here", this.where).catch(() => {});
        break;
      case "say":
        wrote = p.typing > 0;
        p.typing = 0;
        message(m.from, p.node, String(f.text ?? ""), { direct });
        break;
      case "typing":
        p.typing = Date.now() + TYPING_SHOWN;
        break;
      case "ask":
        this.tell(m.from, "here", this.where).catch(() => {});
        break;
      case "leave":
        return this.gone(m.from, `${m.from} left`);
    }
    if (p && (!known || p.node !== at)) showPeople(); // not for each message of a burst
    if (f.type === "typing" || (f.type === "say" && wrote)) showTyping();
  }

  askTheSilent() {
    const now = Date.now();
    const silent = [...this.people.values()].filter((p) => !p.me && now - p.heard > ASK_AFTER).slice(0, ASK_AT_ONCE);
    for (const p of silent) {
      if (p.asked++ >= 3) {
        this.gone(p.name, `${p.name} is not in this room any more`);
        continue;
      }
      this.tell(p.name, "ask", {}, { ack: "owner" }).catch((err) => {
        if (err.code === codes.offline) this.gone(p.name, `${p.name} is gone (offline)`);
      });
    }
  }

  say(text) {
    const e = message(this.me, this.node, text, { mine: true });
    const fate = element("div", "fate", "…");
    e.append(fate);
    this.typed = 0;
    this.put("say", { text, ...this.where }, { ack: "owner", timeout: 15_000 }).then(
      (r) => {
        const others = Math.max(0, r.count - 1); // it came back to us as well
        fate.textContent = others === 0 ? "nobody else is here" : `✓ reached ${others}`;
      },
      (err) => {
        fate.classList.add("bad");
        fate.textContent = `${err.reason ?? err.message}${err.result?.count > 1 ? `, reached at least ${err.result.count - 1}` : ""}`;
      },
    );
  }

  typing() {
    const now = Date.now();
    if (now - this.typed < TYPING_EVERY || this.client.state.kind !== "connected") return;
    this.typed = now;
    this.put("typing", {}, { timeout: 1_000 }).catch(() => {});
  }

  /** now: the page goes away and nothing can be waited for. */
  async leave(now) {
    this.timers.forEach(clearInterval);
    this.put("leave", {}, { timeout: 2_000 }).catch(() => {});
    if (now) this.client.abandon();
    else await this.client.close();
  }
}

// ---- what people do ---------------------------------------------------------------------------------------------------

function fromHash() {
  const h = new URLSearchParams(location.hash.slice(1));
  for (const field of ["name", "room"]) if (h.get(field)) $(field).value = h.get(field);
  const n = nodes.find((n) => n.name === h.get("node") && n.up);
  if (n) $("first-node").value = n.addr;
}

$("enter").addEventListener("submit", async (e) => {
  e.preventDefault();
  const name = $("name").value.trim();
  const where = $("room").value.trim();
  const first = $("first-node").value || location.host;
  const button = e.target.querySelector("button");
  const why = $("why");
  why.hidden = true;
  button.disabled = true;
  const others = nodes.filter((n) => n.up && n.addr !== first).map((n) => n.addr);
  let r;
  try {
    $("log").replaceChildren();
    room = r = new Room(name, where, [first, ...others]);
    await r.enter();
    history.replaceState(null, "", `#${new URLSearchParams({ name, room: where })}`);
    $("title").textContent = where;
    document.title = `${name} in ${where} – imroute chat`;
    $("door").hidden = true;
    $("chat").hidden = false;
    $("text").disabled = false;
    showNodes();
    $("text").focus();
  } catch (err) {
    if (room === r) room = null;
    why.textContent = `It did not work: ${err.message}`;
    why.hidden = false;
  } finally {
    button.disabled = false;
  }
});

$("say").addEventListener("submit", (e) => {
  e.preventDefault();
  const text = $("text").value.trim();
  if (!text || !room) return;
  $("text").value = "";
  room.say(text);
});

$("text").addEventListener("input", () => {
  if ($("text").value) room?.typing();
});

$("node").addEventListener("change", async () => {
  try {
    await room.client.move($("node").value);
  } catch (err) {
    note(`That node did not take you: ${err.message}`, "bad");
    showNodes();
  }
});
$("node").addEventListener("focus", loadNodes);
$("first-node").addEventListener("focus", loadNodes);

$("leave").addEventListener("click", async () => {
  const r = room;
  $("leave").disabled = true;
  await r.leave(false);
  room = null;
  $("leave").disabled = false;
  $("chat").hidden = true;
  $("door").hidden = false;
  document.title = "imroute chat";
  loadNodes();
});

addEventListener("pagehide", () => room?.leave(true));
addEventListener("pageshow", (e) => {
  if (e.persisted) location.reload();
});
addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") loadNodes();
});

loadNodes().then(fromHash);
