// imroute for browsers: one module, no dependencies. Types and documentation stand beside it in imroute.d.ts; the protocol
// is in mesh/wire/frame.go, and what this does on a lost connection is what the Go SDK (node/client) does.

export const PROTOCOL_VERSION = 1;
export const SUBPROTOCOL = "imroute.v1.json";
export const PATH = "/v1/ws";

// codes begin: written from the table in mesh/wire/code.go by `go test ./node/web -run TestCodes -update`
const table = [
  [0, "none", "final"],
  [1, "delivered", "final"],
  [2, "offline", "final"],
  [3, "unavailable", "retry-here"],
  [4, "timeout", "retry-here"],
  [5, "unknown", "retry-here"],
  [6, "overloaded", "retry-here"],
  [7, "too_large", "final"],
  [8, "bad_request", "final"],
  [9, "out_of_order", "final"],
  [10, "forbidden", "final"],
  [11, "accepted", "final"],
  [12, "not_owner", "retry-here"],
  [13, "rate_limited", "retry-here"],
  [20, "joined", "final"],
  [21, "left", "final"],
  [22, "group_closed", "final"],
  [100, "bye", "final"],
  [101, "replaced", "final"],
  [102, "superseded", "final"],
  [103, "kicked", "final"],
  [104, "idle_timeout", "retry-here"],
  [105, "draining", "retry-elsewhere"],
  [106, "lease_lost", "retry-elsewhere"],
  [107, "bad_token", "final"],
  [108, "token_expired", "retry-here"],
  [109, "slow_reader", "retry-here"],
  [110, "protocol_error", "final"],
  [111, "busy", "retry-elsewhere"],
  [112, "already_online", "final"],
  [113, "login_timeout", "retry-elsewhere"],
  [114, "bad_version", "final"],
  [115, "shutting_down", "retry-elsewhere"],
  [116, "connection_lost", "retry-elsewhere"],
  [117, "no_quorum", "retry-elsewhere"],
  [200, "ok", "final"],
  [201, "not_leader", "retry-elsewhere"],
  [202, "not_member", "final"],
  [203, "bad_incarnation", "final"],
  [204, "not_ready", "retry-here"],
  [205, "refused", "final"],
  [206, "internal", "retry-here"],
];
// codes end

const byCode = new Map(table.map(([code, name, cls]) => [code, { name, class: cls }]));

/** Numbers by name: codes.delivered is 1. */
export const codes = Object.freeze(Object.fromEntries(table.map(([code, name]) => [name, code])));

export function codeName(code) {
  return byCode.get(code)?.name ?? `code_${code}`;
}

/** What to do about a code. One that this version does not know is retry-elsewhere: a newer node may have meant anything. */
export function codeClass(code) {
  return byCode.get(code)?.class ?? "retry-elsewhere";
}

export class ImrouteError extends Error {
  constructor(code, text = "", options) {
    super(text ? `${codeName(code)}: ${text}` : codeName(code), options);
    this.name = "ImrouteError";
    this.code = code;
    this.reason = codeName(code);
    this.class = codeClass(code);
    this.text = text;
    this.result = undefined;
  }
}

/** The answer to a request that failed where it was handled; code is what requester and handler agree on, never 0. */
export class Fault extends Error {
  constructor(code, text = "", options) {
    if (!Number.isInteger(code) || code < 1 || code >= 2 ** 32) throw new RangeError(`fault ${code}: want a whole number from 1 to 4294967295`);
    super(text ? `fault ${code}: ${text}` : `fault ${code}`, options);
    this.name = "Fault";
    this.code = code;
    this.text = text;
  }
}

/** Faults that the client itself answers with. */
export const faults = Object.freeze({ internal: 1, busy: 2, gone: 3 });

const NEVER = Infinity;
const DEFAULT_IDLE = 30_000; // all times are in milliseconds
const MIN_IDLE = 100;
const STABLE_AFTER = 10_000; // a session this old starts the backoff anew
const MAX_AFTER = 600_000; // no node makes a client wait longer
const DRAIN_OLD = 2_000; // for what a superseded session still has to say
const LINGER_BYE = 1_000; // for the node's answer to bye
const MAX_HERE = 3; // logins in a row at one node that says "here"
const ASK_AFTER = 1_000; // without a word from the node while an answer is waited for: ping
const ANSWER_WITHIN = 2_000; // without a word after that ping: the node is given up
const SLOWEST_WAY = 32; // bytes a millisecond that a ping waits for what goes before it, either way
const GRACE = 200; // before a silent node is given up: the page may have stood still, and what came meanwhile is read now
const HIGH_WATER = 256 << 10; // bytes the browser holds for a connection before messages wait here instead
const DRAIN_POLL = 20;
const MAX_HELD = 1 << 20; // characters of frames that wait for the former session's last ones
const MAX_LEARNED = 32;
const MAX_LATE = 1024;
const MAX_TIMEOUT = 2 ** 32 - 1;
const MAX_PAYLOAD = 1 << 20;
const MAX_HEADER = 8 << 10;
const COST = 64; // counted for each kept message on top of its payload and recipient
const MAX_GROUPS = 1000;
const LOGIN_GROUPS = 64;
const LOGIN_GROUP_BYTES = 3 << 10;
const MAX_SERVICE_LOAD = 10_000;
const SERVICE_LOAD = 64; // unless the application says otherwise
const MAX_WATCHES = 1000;
const WATCH_IDS = 64; // that one frame carries
const WATCH_BYTES = 3 << 10;
const WATCH_ASKS = 8; // watch and unwatch frames without a result; the others wait for these
const KINDS = new Set(["client", "group", "all", "others", "prefix", "user", "service"]);
const SERVICE = 6; // the number of that kind, as CastSender counts
const ACKS = new Set(["none", "owner", "client"]);

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

const EVENTS = new Set(["message", "state", "left", "unwatched", "refused", "frame"]); // names that no frame type takes over
const FAILED = Symbol("a listener threw");

const byteLength = (s) => encoder.encode(s).length;

class Malformed extends Error {}

const DIGITS = /^\d{1,20}$/;
const MAX_U64 = (1n << 64n) - 1n;

/** A 64-bit number: text, or a plain integer that JSON kept exactly. Absent: 0. */
function u64(frame, field) {
  const v = frame[field];
  if (v === undefined || v === null) return 0n;
  if (typeof v === "string" && DIGITS.test(v)) {
    const n = BigInt(v);
    if (n <= MAX_U64) return n;
  } else if (Number.isSafeInteger(v) && v >= 0) {
    return BigInt(v);
  }
  throw new Malformed(`${field}: not a 64-bit number`);
}

const text = (v) => (typeof v === "string" ? v : "");
const number = (v) => (Number.isFinite(v) && v > 0 ? v : 0);
const texts = (v) => (Array.isArray(v) ? v.filter((s) => typeof s === "string") : []);

function toBase64(bytes) {
  let s = "";
  for (let i = 0; i < bytes.length; i += 0x8000) s += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(s);
}

function fromBase64(s) {
  let raw;
  try {
    raw = atob(s);
  } catch {
    throw new Malformed("payload_b64: not base64");
  }
  return Uint8Array.from(raw, (c) => c.charCodeAt(0));
}

/** What a frame needs to carry a payload: {size, field, value}. size is in bytes, as the cluster counts. */
function encodePayload(payload) {
  if (typeof payload === "string") {
    const wellFormed = /[\ud800-\udfff]/.test(payload) ? decoder.decode(encoder.encode(payload)) : payload; // U+FFFD for a lone surrogate
    const size = byteLength(wellFormed);
    // A node reads no more than twice the limit: text that escapes blow up travels as bytes, which recipients cannot tell.
    const escaped = size + JSON.stringify(wellFormed).length - 2 - wellFormed.length;
    if (escaped <= Math.ceil(size / 3) * 4) return { size, field: "payload", value: wellFormed };
    return { size, field: "payload_b64", value: toBase64(encoder.encode(wellFormed)) };
  }
  let bytes;
  if (ArrayBuffer.isView(payload)) bytes = new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength);
  else if (payload instanceof ArrayBuffer) bytes = new Uint8Array(payload);
  else if (payload === undefined) throw new TypeError('payload is missing: give a string or bytes, "" for an empty message');
  else throw new ImrouteError(codes.bad_request, "payload: want a string or bytes");
  return { size: bytes.length, field: "payload_b64", value: toBase64(bytes) };
}

/** What was received, as text or bytes. */
class Content {
  #text;
  #bytes;
  constructor(f) {
    if (typeof f.payload_b64 === "string") this.#bytes = fromBase64(f.payload_b64);
    else this.#text = text(f.payload);
  }
  get text() {
    return this.#text ?? decoder.decode(this.#bytes);
  }
  get bytes() {
    return this.#bytes ?? encoder.encode(this.#text);
  }
}

/** A received message. */
export class Message extends Content {
  #ack;
  #reply;
  constructor(ack, reply, f) {
    super(f);
    this.from = f.from;
    this.kind = text(f.kind) || "client";
    this.to = text(f.to);
    this.group = this.kind === "group" ? this.to : "";
    this.instance = u64(f, "instance").toString();
    this.id = u64(f, "id").toString();
    this.epoch = u64(f, "epoch").toString();
    this.wantsAck = f.ack === "client";
    this.#ack = ack;
    this.#reply = reply;
    Object.freeze(this);
  }
  ack() {
    if (this.wantsAck) this.#ack(this);
  }
  /** Answers whoever sent this with request. */
  reply(payload) {
    this.#reply(this, encodePayload(payload), 0);
  }
  /** reply for what failed. */
  replyFault(code, text = "") {
    const fault = new Fault(code, text);
    this.#reply(this, encodePayload(fault.text), fault.code);
  }
}

/** What an instance of a service was asked. */
class Request extends Content {
  constructor(f, signal) {
    super(f);
    this.service = text(f.to);
    this.from = f.from;
    this.instance = u64(f, "instance").toString();
    this.id = u64(f, "id").toString();
    this.signal = signal;
    Object.freeze(this);
  }
}

/** The answer to a request. */
class Reply extends Content {
  constructor(f, rtt) {
    super(f);
    this.from = f.from;
    this.id = u64(f, "re").toString();
    this.rtt = rtt;
    Object.freeze(this);
  }
}

// ---- under which instance requests travel -----------------------------------------------------------------------------

/** The fractional bits of a prime's root, 32 of them. */
function primes(n) {
  const out = [];
  for (let k = 2; out.length < n; k++) if (out.every((p) => k % p !== 0)) out.push(k);
  return out;
}
const fraction = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
let rounds; // SHA-256's constants, once they are needed

/** SHA-256, because crypto.subtle exists in secure contexts only, and waits. */
export function sha256(bytes) {
  rounds ??= primes(64).map((p) => fraction(Math.cbrt(p)));
  const h = primes(8).map((p) => fraction(Math.sqrt(p)));
  const padded = new Uint8Array((bytes.length + 9 + 63) & ~63);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length << 3);
  const w = new Int32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15];
      const y = w[i - 2];
      w[i] = w[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + w[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
    }
    let [a, b, c, d, e, f, g, k] = h;
    for (let i = 0; i < 64; i++) {
      const t1 = (k + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + rounds[i] + w[i]) | 0;
      const t2 = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [k, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
    }
    [a, b, c, d, e, f, g, k].forEach((v, i) => (h[i] = (h[i] + v) | 0));
  }
  const out = new DataView(new ArrayBuffer(32));
  h.forEach((v, i) => out.setInt32(4 * i, v));
  return new Uint8Array(out.buffer);
}

/**
 * The instance of a client's requests to a service, as mesh/wire.CastSender makes it, of the instance that the client logs in
 * with. Nodes tell nobody that one: only who was given such a request can name it in an answer.
 */
function serviceInstance(secret, service) {
  const name = encoder.encode(service);
  const b = new Uint8Array(9 + name.length);
  new DataView(b.buffer).setBigUint64(0, BigInt(secret));
  b[8] = SERVICE;
  b.set(name, 9);
  const n = new DataView(sha256(b).buffer).getBigUint64(0);
  return (n || 1n).toString();
}

/** Whether from is the client to, or if to is a user, one of his devices. */
const standsFor = (from, to) => from === to || (!to.includes("/") && from.startsWith(`${to}/`));

// ---- what was seen ----------------------------------------------------------------------------------------------------

const SEEN_IDS = 1024; // of a sender's latest messages; up to twice as many before the lower half goes
const SEEN_SENDERS = 1024; // at least; at most twice as many

/** Rising message ids of one sender. What lies further back than the window counts as new: losing is worse than repeating. */
class SeenIDs {
  ids = [];
  acked = new Set();
  find(id) {
    let lo = 0;
    let hi = this.ids.length;
    if (hi === 0 || id > this.ids[hi - 1]) return [hi, false];
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if (this.ids[mid] < id) lo = mid + 1;
      else hi = mid;
    }
    return [lo, this.ids[lo] === id];
  }
  add(id) {
    let [i, found] = this.find(id);
    if (found) return false;
    if (this.ids.length === 2 * SEEN_IDS) {
      if (i < SEEN_IDS) return true; // beyond the window
      for (const old of this.ids.splice(0, SEEN_IDS)) this.acked.delete(old);
      i -= SEEN_IDS;
    }
    this.ids.splice(i, 0, id);
    return true;
  }
}

class Seen {
  young = new Map();
  old = new Map();
  sender(instance) {
    let s = this.young.get(instance);
    if (s) return s;
    s = this.old.get(instance) ?? new SeenIDs();
    if (this.young.size >= SEEN_SENDERS) {
      this.old = this.young;
      this.young = new Map();
    }
    this.young.set(instance, s);
    return s;
  }
}

// ---- addresses --------------------------------------------------------------------------------------------------------

/** Makes one WebSocket URL of what an application or a node said; undefined if it is none. */
function parseAddress(said, scheme, path) {
  const bare = !said.includes("://");
  let u;
  try {
    u = new URL(bare ? `${scheme}://${said}` : said);
  } catch {
    return undefined;
  }
  if (!["ws:", "wss:"].includes(u.protocol) || u.username || u.password || u.search || u.hash || !u.host) return undefined;
  if (u.pathname === "/") u.pathname = bare && path ? path : PATH;
  return u.href;
}

const secure = (url) => url.startsWith("wss:");

class AddressBook {
  learned = []; // newest first
  constructor(said, scheme, random) {
    this.random = random;
    this.configured = [];
    for (const s of said) {
      const a = parseAddress(String(s), scheme);
      if (!a) throw new TypeError(`addrs: ${JSON.stringify(s)}: want host:port, ws://host:port or wss://host:port`);
      if (!this.configured.includes(a)) this.configured.push(a);
    }
  }
  /** Keeps what a node told over a session to from. What was secure never becomes plain: the next login carries a token. */
  learn(told, from) {
    const u = new URL(from);
    const out = [];
    for (const s of told.slice(0, MAX_LEARNED)) {
      const a = parseAddress(s, u.protocol.slice(0, -1), u.pathname);
      if (a && !(secure(from) && !secure(a)) && !out.includes(a)) out.push(a);
    }
    const fresh = out.filter((a) => !this.configured.includes(a));
    this.learned = [...fresh, ...this.learned.filter((a) => !fresh.includes(a))].slice(0, MAX_LEARNED);
    return out;
  }
  all() {
    return [...this.configured, ...this.learned];
  }
  /** In random order: the clients of a node that fails must not all come to the one that follows it in everybody's list. */
  shuffle(all) {
    const draws = all.map((a) => [a, this.random()]);
    return draws.sort((x, y) => x[1] - y[1]).map(([a]) => a);
  }
  /** The order of one round of logins after something ended at from, which is first (retry-here) or last. */
  plan(from, cls, told) {
    let all = this.all();
    const i = all.indexOf(from);
    if (i >= 0) all = [...all.slice(i + 1), ...all.slice(0, i)];
    all = this.shuffle(all);
    const order = cls === "retry-here" ? [...all, ...told] : [...told, ...all];
    const rest = [...new Set(order)].filter((a) => a !== from);
    return cls === "retry-here" ? [from, ...rest] : [...rest, from];
  }
}

// ---- one connection ---------------------------------------------------------------------------------------------------

/** Why a session ended. told: the node said it. final, here: found out on this side. */
const ending = (code, text, more) => ({ code, text, told: false, final: false, here: false, retry: 0, addrs: [], ...more });

class Session {
  phase = "login"; // then arriving, current, superseded
  ended = null;
  ws = null;
  up = false;
  since = 0;
  heard = 0;
  wrote = 0;
  pinged = -1;
  doubt = NEVER; // when it was found silent for too long
  ahead = 0; // bytes that were before the ping and may not have arrived
  coming = 0; // bytes of the frame that the node is sending: the browser tells of it once all of it is there
  backlog = 0; // bytes the browser held when last looked at
  unheard = 0; // characters written since something was heard
  held = []; // frames that came while arriving
  heldSize = 0;
  groups = [];
  epoch = 0n;
  instance = "0"; // under which this client's messages arrive
  node = "";
  idle = DEFAULT_IDLE;
  maxPayload = MAX_PAYLOAD;

  constructor(addr, attempt, deadline) {
    this.addr = addr;
    this.attempt = attempt;
    this.deadline = deadline;
    this.patience = 0; // for the answer to its login
    this.cancel = new AbortController();
  }
  get open() {
    return this.ws !== null && this.ws.readyState === 1 && this.ended === null;
  }
}

/** Ticks once a second where browsers do not slow timers down: in a worker made of this very file. */
const TICKER = "imroute-ticker";
if (typeof DedicatedWorkerGlobalScope !== "undefined" && self instanceof DedicatedWorkerGlobalScope && self.name === TICKER) {
  setInterval(() => postMessage(0), 1000);
}

function startTicker(onTick) {
  try {
    const w = new Worker(import.meta.url, { type: "module", name: TICKER });
    w.onmessage = onTick;
    w.onerror = (e) => e.preventDefault(); // the timers that are left will do
    return () => w.terminate();
  } catch {
    return () => {};
  }
}

const browser = () => ({
  WebSocket: globalThis.WebSocket,
  now: () => performance.now(),
  setTimeout: (f, ms) => globalThis.setTimeout(f, ms),
  clearTimeout: (t) => globalThis.clearTimeout(t),
  random: Math.random,
});

function positive(cfg, name, fallback, most = Number.MAX_SAFE_INTEGER) {
  const v = cfg[name] ?? fallback;
  if (!Number.isFinite(v) || v <= 0 || v > most) throw new RangeError(`${name} is ${v}: want a number above 0, at most ${most}`);
  return v;
}

// ---- the client -------------------------------------------------------------------------------------------------------

export class Client {
  #cfg;
  #env;
  #instance;
  #listeners = new Map();
  #lastClosed = null;
  #state = { kind: "closed", code: 0, reason: "none", text: "", retrying: false, afterMs: 0 };

  // where and when to log in
  #book;
  #plan = [];
  #welcomed = false; // there was a session: from then on those who lost the same node come at the same time
  #tried = [];
  #attempt = 0;
  #failures = 0;
  #leaving = 0; // why the current session's node asked to go elsewhere, while that is tried
  #here = 0;
  #dueAt = NEVER;
  #live = new Set();
  #next = null;
  #cur = null;
  #moving = null; // {resolve, reject}

  // ending
  #stopping = false;
  #bye = false;
  #byeBy = NEVER;
  #error = null;
  #finished = false;
  #done = Promise.withResolvers?.() ?? withResolvers();
  #up = null;

  // what is sent
  #counter = 0;
  #pending = new Map(); // by id, in the order of ids
  #bytes = 0;
  #inFlight = 0;
  #unsent = []; // not yet handed to the present session
  #unsentAt = 0;
  #soonest = NEVER;
  #askingSince = NEVER;
  #maxPayload = MAX_PAYLOAD;
  #groups = new Map(); // wanted: name → {member, asking, waiters}
  #asked = new Map(); // frames other than messages that have no result yet, by id
  #asks = new Map(); // requests without an answer, by id
  #services = new Map(); // served: by name
  #late = new Set(); // ids given up here: what a node says of them later is no news

  // whom it watches
  #watches = new Set();
  #watchQueue = []; // [frame, answered]: frames that wait for the results of earlier ones
  #watchAsks = 0; // without a result

  // what is received
  #epoch = 0n;
  #sender = "0"; // the instance that others see
  #seen = new Seen();

  // time
  #timer = null;
  #wakeAt = NEVER;
  #unhook = () => {};

  constructor(config) {
    const cfg = { ...config };
    this.#env = { ...browser(), ...cfg.environment };
    if (typeof this.#env.WebSocket !== "function") throw new TypeError("environment.WebSocket is missing: this runtime has none of its own");
    if (typeof cfg.client !== "string") throw new TypeError("client: want a string");
    if (badName(cfg.client)) throw new TypeError(`client: ${badName(cfg.client)}`);
    const scheme = globalThis.location?.protocol === "https:" ? "wss" : "ws";
    const addrs = cfg.addrs ?? (globalThis.location?.host ? [globalThis.location.host] : []);
    if (addrs.length === 0) throw new TypeError("addrs is empty: name at least one node, as host:port or wss://host:port");
    this.#book = new AddressBook(addrs, scheme, () => this.#env.random());
    this.#cfg = {
      client: cfg.client,
      tenant: cfg.tenant ?? "",
      token: cfg.token ?? "",
      tokenSource: cfg.tokenSource,
      manualAck: cfg.manualAck ?? false,
      reconnect: cfg.reconnect ?? true,
      background: cfg.background ?? false,
      timeout: positive(cfg, "timeout", 5_000, MAX_TIMEOUT),
      dialTimeout: positive(cfg, "dialTimeout", 3_000),
      loginTimeout: positive(cfg, "loginTimeout", 10_000),
      backoffMin: positive(cfg, "backoffMin", 50),
      backoffMax: positive(cfg, "backoffMax", 5_000),
      queueBytes: positive(cfg, "queueBytes", 4 << 20),
      maxInFlight: positive(cfg, "maxInFlight", 4096),
    };
    for (const g of cfg.groups ?? []) this.#want(checkTo("group", g));
    this.#instance = randomID();
  }

  get id() {
    return this.#cfg.client;
  }
  get state() {
    return this.#state;
  }
  get groups() {
    return [...this.#groups.keys()];
  }
  /** Fulfilled when the client has ended for good; error then says why. */
  get done() {
    return this.#done.promise;
  }
  get error() {
    return this.#error;
  }
  get pending() {
    return this.#pending.size;
  }
  get addrs() {
    return this.#book.all();
  }

  /** Calls f for each event of a type; returns what ends that. A frame type this version does not know is an event too. */
  on(type, f) {
    let set = this.#listeners.get(type);
    if (!set) this.#listeners.set(type, (set = new Set()));
    set.add(f);
    return () => set.delete(f);
  }

  #emit(type, arg) {
    const results = [];
    for (const f of this.#listeners.get(type) ?? []) {
      try {
        results.push(f(arg));
      } catch (err) {
        complain(err);
        results.push(FAILED);
      }
    }
    return results;
  }

  /** Logs in, trying the addresses until one takes it, a node refuses for good, or signal aborts. */
  connect({ signal } = {}) {
    if (this.#up) return this.#up.promise;
    this.#up = withResolvers();
    this.#up.promise.catch(() => {});
    if (this.#error) {
      this.#up.reject(this.#error);
      return this.#up.promise;
    }
    const abandon = () => {
      const last = this.#lastClosed ?? this.#state;
      const why = last.code ? `; last: ${last.reason}${last.text ? ` (${last.text})` : ""}` : "";
      this.#stop(ending(codes.bye, `login did not succeed in time${why}`));
      this.#act();
    };
    if (signal?.aborted) {
      abandon();
      return this.#up.promise;
    }
    signal?.addEventListener("abort", abandon, { once: true });
    const settle = () => signal?.removeEventListener("abort", abandon);
    this.#up.promise.then(settle, settle);
    this.#hookBrowser();
    this.#plan = this.#book.all();
    this.#dueAt = this.#env.now();
    this.#act();
    return this.#up.promise;
  }

  /**
   * Sends one message and resolves with its result. Rejects with an ImrouteError whose result, if there is one, says more.
   * With ack "none" it resolves once the message is taken; what fails later is told to "refused".
   */
  send(to, payload, options = {}) {
    return new Promise((resolve, reject) => {
      const { kind = "client", ack = "owner", timeout = this.#cfg.timeout, signal } = options;
      this.#post({ kind, to, ack, timeout, signal, payload: encodePayload(payload), resolve, reject });
    });
  }

  /** Takes a message in; throws if it can never be sent, or there is no room for it. */
  #post({ kind = "client", to, ack = "owner", timeout = this.#cfg.timeout, signal, payload, answer, ask, resolve, reject }) {
    checkTo(kind, to);
    if (!ACKS.has(ack)) throw new ImrouteError(codes.bad_request, `ack ${JSON.stringify(ack)}: want none, owner or client`);
    if (!(timeout > 0 && timeout <= MAX_TIMEOUT)) throw new ImrouteError(codes.bad_request, `timeout ${timeout}: want milliseconds above 0, at most ${MAX_TIMEOUT}`);
    if (signal?.aborted) throw new ImrouteError(codes.unavailable, "aborted", { cause: signal.reason });
    if (this.#error) throw this.#error;
    const { size, field, value } = payload;
    if (size > this.#maxPayload) throw new ImrouteError(codes.too_large, `payload of ${size} bytes: the cluster takes ${this.#maxPayload} at most`);
    const cost = size + byteLength(to) + COST;
    if ((this.#bytes > 0 && this.#bytes + cost > this.#cfg.queueBytes) || (ack !== "none" && this.#inFlight >= this.#cfg.maxInFlight)) {
      throw new ImrouteError(codes.overloaded, "too much is waiting in this client: wait for results, or raise queueBytes or maxInFlight");
    }
    const frame = { type: "send", id: String(++this.#counter), to };
    if (kind !== "client") frame.kind = kind;
    if (ack !== "none") frame.ack = ack;
    if (answer) Object.assign(frame, answer); // re, re_instance, fault
    frame[field] = value;
    const now = this.#env.now();
    const p = { id: frame.id, frame, size, cost, ack, once: kind === "service", over: null, start: now, deadline: now + timeout, tries: 0, resolve, reject, signal, onAbort: null };
    if (signal && ack !== "none") {
      p.onAbort = () => this.#settle(p, p.tries ? codes.timeout : codes.unavailable, { text: "aborted", cause: signal.reason });
      signal.addEventListener("abort", p.onAbort, { once: true });
    }
    if (ask) this.#asks.set((ask.id = p.id), ask);
    this.#pending.set(p.id, p);
    this.#bytes += cost;
    if (ack !== "none") {
      if (this.#inFlight++ === 0) this.#askingSince = now;
    } else {
      resolve({ code: 0, reason: "none", id: p.id, node: "", count: 0, missed: 0, missedIds: [], text: "", rtt: 0 });
    }
    this.#soonest = Math.min(this.#soonest, p.deadline);
    this.#unsent.push(p);
    this.#flush();
    this.#schedule();
  }

  /**
   * Asks a client, or one instance of a service, and resolves with the answer. Rejects with a Fault if it failed there, otherwise
   * with an ImrouteError: offline, overloaded and unavailable say that nobody had it, timeout and unknown that somebody may have
   * done it. A request to a service is never done twice.
   */
  request(to, payload, options = {}) {
    if (typeof to === "object" && to !== null) return this.exchange(to, payload);
    return new Promise((resolve, reject) => {
      const { kind = "client", timeout = this.#cfg.timeout, signal } = options;
      if (kind !== "client" && kind !== "service") throw new ImrouteError(codes.bad_request, `a request goes to a client or a service, not to ${JSON.stringify(kind)}`);
      if (this.#asks.size >= this.#cfg.maxInFlight) throw new ImrouteError(codes.overloaded, "too many requests wait for an answer: wait for some, or raise maxInFlight");
      const start = this.#env.now();
      const ask = { id: "", kind, to, start, timer: null, signal, onAbort: null, resolve, reject };
      const had = () => {
        if (this.#asks.get(ask.id) !== ask) return; // the answer was faster
        const give = (text, cause) => this.#answerWith(ask, new ImrouteError(codes.timeout, text, cause && { cause }));
        const left = Math.max(0, start + timeout - this.#env.now());
        ask.timer = this.#env.setTimeout(() => give("it was handed over, but not answered within the time-out"), Math.min(left, 2 ** 31 - 1));
        if (!signal) return;
        if (signal.aborted) return give("aborted", signal.reason);
        ask.onAbort = () => give("aborted", signal.reason);
        signal.addEventListener("abort", ask.onAbort, { once: true });
      };
      this.#post({ kind, to, timeout, signal, payload: encodePayload(payload), ask, resolve: had, reject: (err) => this.#answerWith(ask, err) });
    });
  }

  /** Ends a request, with a Reply or an error; the first one counts. */
  #answerWith(ask, outcome) {
    if (this.#asks.get(ask.id) !== ask) return;
    this.#asks.delete(ask.id);
    if (ask.timer !== null) this.#env.clearTimeout(ask.timer);
    if (ask.onAbort) ask.signal.removeEventListener("abort", ask.onAbort);
    const p = this.#pending.get(ask.id); // its result is no news any more
    if (p) {
      if (p.tries) this.#lateResult(p.id);
      this.#drop(p);
    }
    if (outcome instanceof Error) ask.reject(outcome);
    else ask.resolve(outcome);
  }

  /**
   * Tells f of each of ids whether it is online: first the present state, then every change. Resolves, once the present states
   * were told, with what ends that. It goes on over reconnects.
   */
  async watch(ids, f) {
    const list = [...new Set(typeof ids === "string" ? [ids] : ids)];
    if (list.length === 0 || list.length > MAX_WATCHES) throw new ImrouteError(codes.bad_request, `watch: ${list.length} ids: want 1 to ${MAX_WATCHES}`);
    for (const id of list) checkTo("client", id);
    return this.#watch({ ids: new Set(list.sort()), list: "" }, f);
  }

  /** watch for those whom the cluster's friend source names for this client, as it does now and after each reconnect. */
  async watchFriends(f) {
    return this.#watch({ ids: new Set(), list: "friends" }, f);
  }

  async #watch(w, f) {
    if (typeof f !== "function") throw new TypeError("watch: want a function to tell");
    if (this.#error) throw this.#error;
    Object.assign(w, { f, told: new Map(), begun: false, began: withResolvers() });
    this.#watches.add(w);
    if (this.#cur) this.#askWatch(w);
    await w.began.promise;
    return () => this.#unwatch(w, [...w.ids]);
  }

  /** Ends watching ids, whichever watch named them. */
  unwatch(ids) {
    const list = typeof ids === "string" ? [ids] : [...ids];
    for (const w of [...this.#watches]) {
      const of = list.filter((id) => w.ids.has(id));
      if (of.length > 0) this.#unwatch(w, of);
    }
  }

  /**
   * Makes this client an instance of a service and resolves, once the cluster knows, with what ends that. handler gets requests,
   * capacity of them at a time at most, and returns the answer or a promise of it. It stays one over reconnects.
   */
  async serve(name, handler, { capacity = SERVICE_LOAD } = {}) {
    checkTo("service", name);
    if (typeof handler !== "function") throw new TypeError("serve: want a function that answers");
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAX_SERVICE_LOAD) throw new ImrouteError(codes.bad_request, `capacity ${capacity}: want 1 to ${MAX_SERVICE_LOAD}`);
    if (this.#error) throw this.#error;
    if (this.#services.has(name)) throw new ImrouteError(codes.refused, `this client serves ${name} already`);
    const v = { name, handler, capacity, asking: false, begun: false, began: withResolvers(), open: new Set() };
    this.#services.set(name, v);
    if (this.#cur) this.#askServe(v);
    await v.began.promise;
    return (options) => this.#unserve(v, options);
  }

  /** Resolves once the cluster knows that this client is in the group; it stays so over reconnects, until leave. */
  async join(group) {
    checkTo("group", group);
    if (this.#error) throw this.#error;
    if (!this.#groups.has(group) && this.#groups.size >= MAX_GROUPS) throw new ImrouteError(codes.refused, `a client may be in ${MAX_GROUPS} groups at most`);
    const m = this.#want(group);
    if (m.member) return;
    const answer = withResolvers();
    m.waiters.push(answer);
    if (this.#cur && !m.asking) this.#askJoin(group, m);
    this.#schedule();
    await answer.promise;
  }

  async leave(group) {
    checkTo("group", group);
    if (this.#error) throw this.#error;
    this.#unwant(group, new ImrouteError(codes.left, "left again before it was joined"));
    if (!this.#cur) return; // nobody counts a client without a session as a member
    const answer = withResolvers();
    this.#ask({ type: "leave", to: group }, answer.resolve);
    await answer.promise;
  }

  /**
   * Sends a frame of any type under an id of its own and resolves with the result frame that answers it. It is not repeated:
   * when the session ends first it rejects with connection_lost. For frame types that this version knows nothing about.
   */
  exchange(frame, { timeout = this.#cfg.timeout } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#error) throw this.#error;
      if (!this.#cur) throw new ImrouteError(codes.connection_lost, "no session at the moment");
      const t = this.#env.setTimeout(() => {
        this.#asked.set(id, () => {}); // an answer that comes later is no news
        reject(new ImrouteError(codes.timeout, "no answer within the time-out"));
      }, timeout);
      const id = this.#ask(frame, (f) => {
        this.#env.clearTimeout(t);
        if (!f) reject(new ImrouteError(codes.connection_lost, "the session ended before the answer"));
        else resolve({ ...f, reason: codeName(f.code) });
      });
    });
  }

  /**
   * Logs in at another node while the present session goes on, and resolves with its name once that one has taken over.
   * If it does not, the present session stays; without one the address is the first to be tried.
   */
  move(addr) {
    return new Promise((resolve, reject) => {
      if (this.#error) throw this.#error;
      if (!this.#up) throw new ImrouteError(codes.bad_request, "connect first");
      const a = parseAddress(String(addr), secure(this.#cur?.addr ?? this.#book.configured[0]) ? "wss" : "ws");
      if (!a) throw new ImrouteError(codes.bad_request, `${JSON.stringify(addr)}: want host:port, ws://host:port or wss://host:port`);
      if (!this.#book.all().includes(a)) this.#book.learn([a], a);
      this.#moving?.reject(new ImrouteError(codes.superseded, "another move began"));
      this.#moving = null;
      if (this.#cur?.addr === a && !this.#next) return resolve(this.#cur.node);
      const old = this.#next;
      if (old) this.#end(old, ending(codes.superseded, "another move began"));
      this.#moving = { resolve, reject };
      this.#plan = [a, ...this.#plan.filter((p) => p !== a)];
      this.#tried = [];
      this.#dueAt = this.#env.now();
      this.#act();
    });
  }

  /** Says bye, lets what was queued leave within timeout, fails what is pending, and resolves when all has ended. */
  close({ timeout = 3_000 } = {}) {
    if (!this.#stopping) {
      this.#error ??= new ImrouteError(codes.bye, "the client was closed");
      this.#stopping = true;
      for (const s of [...this.#live]) if (s !== this.#cur) this.#end(s, ending(codes.bye, ""));
      this.#bye = this.#cur !== null;
      this.#byeBy = this.#env.now() + timeout;
      this.#act();
    }
    return this.done;
  }

  /** Says bye at once, for a page that goes away: nothing is waited for. */
  abandon() {
    if (!this.#stopping) {
      this.#flush();
      if (this.#cur?.open) this.#write(this.#cur, { type: "bye" });
      this.#stop(ending(codes.bye, "the client was closed"));
      this.#act();
    }
  }

  // ---- what is due ----------------------------------------------------------------------------------------------------

  #act() {
    if (this.#finished) return;
    const now = this.#env.now();
    this.#expire(now);
    if (this.#dueAt <= now && !this.#next && !this.#stopping) this.#login(now);
    for (const s of [...this.#live]) {
      if ((s.phase !== "login" && s.phase !== "superseded") || s.deadline > now) continue;
      if (s.phase === "superseded") this.#end(s, ending(codes.superseded, "not closed by its node"));
      else this.#end(s, ending(codes.login_timeout, s.open ? "no answer to login in time" : "no connection in time"));
    }
    if (this.#cur) this.#heartbeat(this.#cur, now);
    this.#flush();
    if (this.#bye && this.#cur?.open && this.#unsentAt === this.#unsent.length) {
      this.#bye = false;
      this.#write(this.#cur, { type: "bye" });
      this.#byeBy = Math.min(this.#byeBy, now + LINGER_BYE);
    }
    if (this.#byeBy <= now) {
      this.#byeBy = NEVER;
      for (const s of [...this.#live]) this.#end(s, ending(codes.bye, ""));
    }
    if (this.#stopping && this.#live.size === 0) this.#finish();
    this.#schedule();
  }

  #schedule() {
    if (this.#finished) return;
    let at = Math.min(this.#byeBy, this.#soonest);
    if (!this.#next && !this.#stopping) at = Math.min(at, this.#dueAt);
    for (const s of this.#live) if (s.phase === "login" || s.phase === "superseded") at = Math.min(at, s.deadline);
    if (this.#cur) at = Math.min(at, ...this.#heartbeatTimes(this.#cur));
    const now = this.#env.now();
    if (this.#cur?.open && this.#unsentAt < this.#unsent.length) at = Math.min(at, now + DRAIN_POLL);
    if (at === this.#wakeAt && this.#timer !== null) return;
    if (this.#timer !== null) this.#env.clearTimeout(this.#timer);
    this.#timer = null;
    this.#wakeAt = at;
    if (at === NEVER) return;
    this.#timer = this.#env.setTimeout(() => this.#wake(), Math.min(Math.max(0, Math.ceil(at - now)), 2 ** 31 - 1));
  }

  #wake() {
    if (this.#timer !== null) this.#env.clearTimeout(this.#timer);
    this.#timer = null;
    this.#act();
  }

  /** Hidden pages' timers are slow, and a network that comes back is worth a look at once. */
  #hookBrowser() {
    const add = globalThis.addEventListener;
    if (typeof add !== "function" || !globalThis.document) return;
    let stopTicker = () => {};
    const tick = () => {
      if (this.#wakeAt <= this.#env.now()) this.#wake();
    };
    const visibility = () => {
      stopTicker();
      stopTicker = () => {};
      if (document.visibilityState === "hidden" && this.#cfg.background) stopTicker = startTicker(tick);
      tick();
    };
    const online = () => {
      if (this.#dueAt !== NEVER && !this.#stopping) {
        this.#dueAt = this.#env.now();
        this.#act();
      }
    };
    document.addEventListener("visibilitychange", visibility);
    globalThis.addEventListener("online", online);
    visibility();
    this.#unhook = () => {
      stopTicker();
      document.removeEventListener("visibilitychange", visibility);
      globalThis.removeEventListener("online", online);
    };
  }

  /**
   * When to ping a session, and when to give it up: a ping after a third of the idle time in which nothing was sent or heard,
   * the end after another third. Who waits for an answer asks sooner.
   */
  #heartbeatTimes(s) {
    const third = s.idle / 3;
    let ping = Math.max(s.pinged, Math.min(s.wrote, s.heard)) + third;
    let dead = s.pinged > s.heard ? s.pinged + third + s.ahead / SLOWEST_WAY : NEVER;
    if (this.#inFlight > 0 && s.open) {
      const since = Math.max(this.#askingSince, s.since, s.heard);
      if (s.pinged <= since) ping = Math.min(ping, since + ASK_AFTER);
      else dead = Math.min(dead, s.pinged + ANSWER_WITHIN + s.ahead / SLOWEST_WAY);
    }
    dead += s.coming / SLOWEST_WAY;
    if (s.doubt === NEVER || s.heard > s.doubt) return [ping, dead];
    return [NEVER, s.doubt + GRACE];
  }

  #heartbeat(s, now) {
    const backlog = s.ws?.bufferedAmount ?? 0;
    if (backlog < s.backlog) s.ahead = Math.max(s.ahead, backlog); // the network takes it: slow is not dead
    if (backlog < s.backlog && s.pinged > s.heard) s.pinged = now;
    s.backlog = backlog;
    const [ping, dead] = this.#heartbeatTimes(s);
    if (s.heard > s.doubt) s.doubt = NEVER;
    if (dead <= now && s.doubt !== NEVER) return this.#end(s, ending(codes.idle_timeout, "the node was not heard for too long"));
    if (dead <= now) s.doubt = now;
    if (ping > now || s.doubt !== NEVER) return;
    s.pinged = now;
    s.ahead = Math.max(backlog, s.unheard); // what the browser holds no more may wait in the system or on the way
    this.#write(s, { type: "ping" });
  }

  // ---- sessions -------------------------------------------------------------------------------------------------------

  #login(now) {
    if (this.#plan.length === 0) {
      this.#tried = [];
      this.#plan = this.#welcomed ? this.#book.shuffle(this.#book.all()) : this.#book.all();
      if (this.#cur && this.#plan.length > 1) this.#plan = this.#plan.filter((a) => a !== this.#cur.addr); // it sent us away
    }
    const addr = this.#plan.shift();
    this.#tried.push(addr);
    this.#dueAt = NEVER;
    const s = new Session(addr, ++this.#attempt, now + this.#cfg.loginTimeout);
    // A process that hangs is still connected to by its kernel: the others must get their turn.
    s.patience = this.#plan.length > 0 ? this.#cfg.loginTimeout / 2 : this.#cfg.loginTimeout;
    this.#next = s;
    this.#live.add(s);
    if (!this.#cur) this.#report({ kind: "connecting", addr });
    this.#dial(s);
  }

  async #dial(s) {
    let token = this.#cfg.token;
    if (this.#cfg.tokenSource) {
      try {
        token = await this.#cfg.tokenSource({ signal: s.cancel.signal });
      } catch (err) {
        const known = err instanceof ImrouteError;
        return this.#end(s, ending(known ? err.code : codes.bad_token, `asking tokenSource: ${err?.message ?? err}`, { here: true, final: known && err.class === "final" }));
      }
    }
    if (s.ended) return;
    let ws;
    try {
      ws = new this.#env.WebSocket(s.addr, SUBPROTOCOL);
    } catch (err) {
      return this.#end(s, ending(codes.connection_lost, String(err?.message ?? err)));
    }
    s.ws = ws;
    s.deadline = this.#env.now() + this.#cfg.dialTimeout;
    this.#schedule();
    ws.onopen = () => {
      if (s.ended) return;
      s.deadline = this.#env.now() + s.patience;
      this.#schedule();
      const login = { type: "login", version: PROTOCOL_VERSION, client: this.#cfg.client, instance: this.#instance, attempt: String(s.attempt) };
      if (this.#cfg.tenant) login.tenant = this.#cfg.tenant;
      if (token) login.token = token;
      s.groups = loginGroups(this.groups);
      if (s.groups.length) login.groups = s.groups;
      this.#write(s, login);
    };
    ws.onmessage = (e) => this.#heard(s, e.data);
    ws.onclose = (e) => {
      // 4000 and up: the node's own code, should the kick before it have been lost
      if (e.code >= 4000 && e.code < 5000) this.#end(s, ending(e.code - 4000, e.reason, { told: true }));
      else this.#end(s, ending(codes.connection_lost, e.reason || (s.up ? "the connection broke" : "no node answered there")));
    };
  }

  #write(s, frame) {
    if (!s.open) return;
    try {
      const text = JSON.stringify(frame);
      s.ws.send(text);
      s.wrote = this.#env.now();
      s.unheard += text.length;
    } catch (err) {
      this.#end(s, ending(codes.connection_lost, String(err?.message ?? err)));
    }
  }

  #heard(s, data) {
    if (s.ended) return;
    s.heard = this.#env.now();
    s.unheard = 0;
    if (s.phase === "arriving") {
      s.held.push(data);
      s.heldSize += data.length ?? 0;
      if (s.heldSize > MAX_HELD) for (const o of [...this.#live]) if (o.phase === "superseded") this.#end(o, ending(codes.superseded, "the new session has too much to say"));
    } else {
      this.#read(s, data);
    }
    this.#schedule();
  }

  #read(s, data) {
    let e;
    s.coming = 0;
    try {
      if (typeof data !== "string") throw new Malformed("a binary message");
      const f = JSON.parse(data);
      if (f === null || typeof f !== "object" || typeof f.type !== "string") throw new Malformed("not a frame");
      e = s.up ? this.#handle(s, f) : this.#answerToLogin(s, f);
    } catch (err) {
      if (!(err instanceof Malformed) && !(err instanceof SyntaxError)) throw err;
      e = ending(codes.protocol_error, err.message);
    }
    if (e) this.#end(s, e);
  }

  #answerToLogin(s, f) {
    switch (f.type) {
      case "waiting": {
        const left = Math.min(number(f.timeout_ms), MAX_AFTER);
        s.deadline = this.#env.now() + left + this.#cfg.loginTimeout;
        if (!this.#cur) this.#report({ kind: "waiting", addr: s.addr, leftMs: left });
        return null;
      }
      case "kick":
        return kicked(f);
      case "pong":
        return null;
      case "welcome":
        return this.#welcome(s, f);
    }
    return ending(codes.protocol_error, `${f.type} in answer to login`);
  }

  #welcome(s, f) {
    s.epoch = u64(f, "epoch");
    if (s.epoch === 0n) return ending(codes.protocol_error, "welcome without an epoch");
    if (s.epoch < this.#epoch) {
      return ending(codes.protocol_error, `welcomed with epoch ${s.epoch} although ${this.#epoch} was seen: another cluster, or one set back to old data; if that is meant, start this client anew`);
    }
    s.instance = u64(f, "instance").toString();
    s.node = text(f.node);
    s.idle = Math.max(number(f.idle_ms) || DEFAULT_IDLE, MIN_IDLE);
    s.maxPayload = number(f.max_payload) || MAX_PAYLOAD;
    this.#book.learn(texts(f.addrs), s.addr);
    this.#next = null;
    this.#dueAt = NEVER;
    this.#leaving = 0;
    this.#plan = [];
    this.#tried = [];
    this.#here = 0;
    s.up = this.#welcomed = true;
    s.since = this.#env.now();
    s.phase = "arriving";
    if (this.#cur) {
      this.#cur.phase = "superseded";
      this.#cur.deadline = s.since + DRAIN_OLD;
    }
    this.#cur = s;
    this.#maxPayload = s.maxPayload;
    this.#sender = s.instance;
    this.#joinAll(s);
    for (const v of this.#services.values()) this.#askServe(v);
    this.#watchAll();
    this.#resendAll(s);
    this.#moving?.resolve(s.node);
    this.#moving = null;
    this.#arrive();
    this.#report({ kind: "connected", addr: s.addr, node: s.node, epoch: s.epoch.toString() });
    this.#up.resolve();
    this.#flush();
    return null;
  }

  /** The new session delivers once the former one was read to its end: what that still brings would fall behind the fence. */
  #arrive() {
    const s = this.#cur;
    if (!s || s.phase !== "arriving") return;
    for (const o of this.#live) if (o.phase === "superseded") return;
    s.phase = "current";
    if (s.epoch > this.#epoch) this.#epoch = s.epoch;
    const held = s.held;
    s.held = [];
    for (const data of held) if (!s.ended) this.#read(s, data);
  }

  #handle(s, f) {
    switch (f.type) {
      case "deliver":
        return this.#deliver(s, f);
      case "result":
        return this.#result(s, f);
      case "presence":
        if (s === this.#cur) this.#saw(f); // its successor tells all anew
        return null;
      case "leave":
        if (s === this.#cur) (f.kind === "service" ? this.#unserved : this.#left).call(this, text(f.to), new ImrouteError(number(f.code), text(f.text)));
        return null;
      case "pong":
        s.coming = Math.min(number(f.count), 4 * s.maxPayload + MAX_HEADER);
        return null;
      case "kick":
        return kicked(f);
      case "goaway":
        this.#goaway(s, f);
        return null;
      case "login":
      case "welcome":
      case "waiting":
      case "send":
      case "ack":
      case "ping":
      case "bye":
      case "join":
      case "watch":
      case "unwatch":
        return ending(codes.protocol_error, `${f.type} out of place`);
    }
    if (!EVENTS.has(f.type)) this.#emit(f.type, f).forEach(quiet);
    this.#emit("frame", f).forEach(quiet);
    return null;
  }

  /** Looks for another node while the session goes on. */
  #goaway(s, f) {
    if (s !== this.#cur || this.#stopping || !this.#cfg.reconnect) return;
    const told = this.#book.learn(texts(f.addrs), s.addr);
    const cls = codeClass(number(f.code));
    if (cls === "final" || this.#next || this.#dueAt !== NEVER) return; // a kick will follow, or we are at it
    let plan = this.#book.plan(s.addr, cls, told);
    if (cls === "retry-elsewhere") plan = plan.slice(0, -1);
    if (plan.length === 0) return; // nowhere else to go: stay until the kick
    this.#plan = plan;
    this.#tried = [];
    this.#leaving = number(f.code);
    this.#dueAt = this.#env.now() + this.#backoff(0);
  }

  /** Ends a session; the first reason counts. */
  #end(s, e) {
    if (s.ended) return;
    s.ended = e;
    s.cancel.abort();
    if (s.ws) {
      s.ws.onopen = s.ws.onmessage = s.ws.onclose = null;
      try {
        s.ws.close(1000);
      } catch {
        // it never opened
      }
    }
    if (this.#live.delete(s)) this.#ended(s, e);
    this.#act();
  }

  /** Decides what follows. */
  #ended(s, e) {
    const was = s === this.#cur;
    const now = this.#env.now();
    if (s === this.#next) this.#next = null;
    for (const p of [...this.#pending.values()]) {
      if (p.once && p.over === s) this.#settle(p, codes.unknown, { text: "the connection ended before anybody told whether an instance had the request" });
    }
    if (was) {
      this.#cur = null;
      if (now - s.since >= STABLE_AFTER) this.#failures = 0;
      for (const [, q] of this.#asked) q(null);
      this.#asked.clear();
      for (const [, m] of this.#groups) m.member = m.asking = false;
    }
    this.#arrive();
    if (this.#stopping || s.phase === "superseded") return;
    const cls = this.#classify(s, e);
    if (cls === "final" || (!this.#cfg.reconnect && s.up)) {
      this.#stop(e);
      return this.#reportClosed(e, false, 0);
    }
    if (was && (this.#next || this.#dueAt !== NEVER)) {
      // the move that a goaway began goes on, now in a hurry
      this.#book.learn(e.addrs, s.addr);
      if (!this.#next) this.#dueAt = Math.min(this.#dueAt, now + this.#backoff(0));
      const why = e.told && e.code === codes.superseded && this.#leaving ? ending(this.#leaving, "its node asked to connect elsewhere") : e; // by our login there
      return this.#reportClosed(why, true, this.#next ? 0 : Math.max(0, this.#dueAt - now));
    }
    if (!was && this.#moving && this.#cur) { // a move that was asked for failed: stay
      this.#moving.reject(new ImrouteError(e.code, e.text));
      this.#moving = null;
      this.#dueAt = NEVER;
      this.#plan = [];
      return;
    }
    this.#replan(s, cls, this.#book.learn(e.addrs, s.addr));
    const after = this.#pause(e);
    this.#dueAt = now + after;
    if (!this.#cur) this.#reportClosed(e, true, after);
  }

  /** The code's class, except for what this end knows better. */
  #classify(s, e) {
    if (!e.told) return e.final ? "final" : e.here ? "retry-here" : "retry-elsewhere";
    if (e.code === codes.superseded) return "retry-here"; // by an attempt of our own that was given up: the next one is higher
    if (e.code === codes.token_expired && !s.up && !this.#cfg.tokenSource) return "final"; // there is no other
    return codeClass(e.code);
  }

  #replan(s, cls, told) {
    if (s.up) {
      this.#tried = [];
      this.#here = cls === "retry-here" ? 1 : 0;
      this.#plan = this.#book.plan(s.addr, cls, told);
    } else if (cls === "retry-here" && this.#here < MAX_HERE) {
      this.#here++;
      this.#plan = [s.addr, ...this.#plan];
    } else {
      this.#here = 0;
      const front = told.filter((a) => !this.#tried.includes(a));
      this.#plan = [...front, ...this.#plan.filter((a) => !front.includes(a))];
    }
  }

  /** A node that cannot register anybody names a time for itself; one that is busy speaks for the cluster. */
  #pause(e) {
    let after = this.#backoff(this.#failures++);
    if (e.retry > 0 && (e.code !== codes.no_quorum || this.#plan.length === 0)) {
      const retry = Math.min(e.retry, MAX_AFTER);
      after = Math.max(after, retry + (this.#env.random() * retry) / 4); // those told the same spread out
    }
    return after;
  }

  #backoff(n) {
    const { backoffMin, backoffMax } = this.#cfg;
    if (n === 0) return this.#env.random() * backoffMin;
    const d = Math.min(backoffMax, backoffMin * 2 ** Math.min(n - 1, 40));
    return d / 2 + (this.#env.random() * d) / 2;
  }

  #stop(e) {
    this.#error ??= new ImrouteError(e.code, e.text);
    this.#stopping = true;
    for (const s of [...this.#live]) this.#end(s, e);
  }

  #finish() {
    this.#finished = true;
    if (this.#timer !== null) this.#env.clearTimeout(this.#timer);
    this.#timer = null;
    this.#unhook();
    for (const p of [...this.#pending.values()]) this.#settle(p, p.tries ? codes.unknown : codes.unavailable, { text: this.#error.message });
    for (const [name] of [...this.#groups]) this.#unwant(name, this.#error);
    for (const [, q] of this.#asked) q(null);
    this.#asked.clear();
    for (const a of [...this.#asks.values()]) this.#answerWith(a, new ImrouteError(codes.unknown, this.#error.message, { cause: this.#error }));
    for (const w of this.#watches) w.began.reject(this.#error);
    this.#watches.clear();
    for (const v of this.#services.values()) {
      v.began.reject(this.#error);
      for (const r of v.open) r.cancel.abort(this.#error);
    }
    this.#services.clear();
    this.#moving?.reject(this.#error);
    this.#up?.reject(this.#error);
    if (this.#state.kind !== "closed" || this.#state.retrying) this.#report({ kind: "closed", code: this.#error.code, reason: this.#error.reason, text: this.#error.text, retrying: false, afterMs: 0 });
    this.#done.resolve();
  }

  #reportClosed(e, retrying, afterMs) {
    this.#report(this.#lastClosed = { kind: "closed", code: e.code, reason: codeName(e.code), text: e.text, retrying, afterMs: Math.round(afterMs) });
  }

  #report(state) {
    this.#state = Object.freeze(state);
    this.#emit("state", state).forEach(quiet);
  }

  // ---- what is sent ---------------------------------------------------------------------------------------------------

  /** Hands messages to the session as long as the browser does not hold too much already. */
  #flush() {
    const s = this.#cur;
    if (!s?.open) return;
    while (this.#unsentAt < this.#unsent.length && s.ws.bufferedAmount < HIGH_WATER && !s.ended) {
      const p = this.#unsent[this.#unsentAt++];
      if (!this.#pending.has(p.id)) continue; // settled meanwhile
      const now = this.#env.now();
      const left = p.deadline - now;
      if (left <= 0) continue; // about to be ended
      // The node gives up a little sooner, so that its answer, which knows more than "no answer", is here in time.
      this.#write(s, { ...p.frame, timeout_ms: Math.max(1, Math.ceil(left - Math.min(left / 8, 250))) });
      if (s.ended) break; // it waits for the next session
      p.tries++;
      p.over = s;
      if (p.ack === "none") this.#drop(p);
    }
    if (this.#unsentAt === this.#unsent.length || this.#unsentAt > 1024) {
      this.#unsent.splice(0, this.#unsentAt);
      this.#unsentAt = 0;
    }
  }

  /** Everything pending goes over the new session, in order and under its old ids. */
  #resendAll(s) {
    this.#unsent = [];
    this.#unsentAt = 0;
    for (const p of [...this.#pending.values()]) {
      if (p.once && p.tries) continue; // never repeated: its session tells, or its end does
      if (p.size > s.maxPayload) this.#settle(p, codes.too_large, { text: `the cluster takes ${s.maxPayload} bytes at most` });
      else this.#unsent.push(p);
    }
  }

  #drop(p) {
    if (!this.#pending.delete(p.id)) return false;
    this.#bytes -= p.cost;
    if (p.ack !== "none" && --this.#inFlight === 0) this.#askingSince = NEVER;
    if (p.onAbort) p.signal.removeEventListener("abort", p.onAbort);
    return true;
  }

  #lateResult(id) {
    this.#late.add(id);
    if (this.#late.size > MAX_LATE) this.#late.delete(this.#late.values().next().value);
  }

  #settle(p, code, { node = "", count = 0, missed = 0, missedIds = [], text: said = "", cause } = {}) {
    if (!this.#drop(p)) return;
    if (p.ack !== "none" && p.tries && (code === codes.timeout || code === codes.unavailable)) {
      this.#lateResult(p.id);
    }
    const result = { code, reason: codeName(code), id: p.id, node, count, missed, missedIds, text: said, rtt: this.#env.now() - p.start };
    if (p.ack === "none") return void this.#emit("refused", result).forEach(quiet);
    if (code === codes.delivered || code === codes.accepted) return p.resolve(result);
    const err = new ImrouteError(code, said, cause === undefined ? undefined : { cause });
    err.result = result;
    p.reject(err);
  }

  #expire(now) {
    if (now < this.#soonest) return;
    this.#soonest = NEVER;
    for (const p of [...this.#pending.values()]) {
      if (p.deadline > now) this.#soonest = Math.min(this.#soonest, p.deadline);
      else if (p.tries) this.#settle(p, codes.timeout, { text: "no answer within the time-out" });
      else this.#settle(p, codes.unavailable, { text: "no connection within the time-out" });
    }
  }

  #result(s, f) {
    const id = u64(f, "id").toString();
    const code = number(f.code);
    if (id === "0" || code === 0) return ending(codes.protocol_error, "result without id or code");
    const p = this.#pending.get(id);
    if (s !== this.#cur && code !== codes.delivered && !(p?.once && p.over === s)) return null; // says nothing about the repetition over the new session
    const asked = this.#asked.get(id);
    if (asked) {
      this.#asked.delete(id);
      asked(f);
      return null;
    }
    const said = { node: text(f.node), count: number(f.count), missed: number(f.missed), missedIds: texts(f.missed_ids), text: text(f.text) };
    if (p) this.#settle(p, code, said);
    else if (this.#late.delete(id)) return null;
    else if (code !== codes.delivered && code !== codes.accepted) this.#emit("refused", { code, reason: codeName(code), id, ...said, rtt: 0 }).forEach(quiet);
    return null;
  }

  #ask(frame, answered) {
    const id = String(++this.#counter);
    this.#asked.set(id, answered);
    this.#write(this.#cur, { ...frame, id });
    return id;
  }

  // ---- groups ---------------------------------------------------------------------------------------------------------

  #want(group) {
    let m = this.#groups.get(group);
    if (!m) this.#groups.set(group, (m = { member: false, asking: false, waiters: [] }));
    return m;
  }

  #unwant(group, why) {
    const m = this.#groups.get(group);
    if (!m) return false;
    this.#groups.delete(group);
    for (const w of m.waiters.splice(0)) w.reject(why);
    return true;
  }

  #askJoin(group, m) {
    m.asking = true;
    this.#ask({ type: "join", to: group }, (f) => {
      if (!f || this.#groups.get(group) !== m || !m.asking) return; // the next session asks again, or it was left meanwhile
      m.asking = false;
      const code = number(f.code);
      if (code === codes.joined) {
        m.member = true;
        for (const w of m.waiters.splice(0)) w.resolve();
      } else if (code !== codes.unavailable) {
        // refused: whoever waits hears it, or else "left" says so
        const why = new ImrouteError(code, text(f.text));
        const told = m.waiters.length > 0;
        this.#unwant(group, why);
        if (!told) this.#emit("left", { group, service: "", error: why }).forEach(quiet);
      }
    });
  }

  /** The login's groups hold already; the others are asked for. */
  #joinAll(s) {
    for (const [, q] of this.#asked) q(null);
    this.#asked.clear();
    for (const name of s.groups) if (!this.#groups.has(name)) this.#ask({ type: "leave", to: name }, () => {}); // left meanwhile
    for (const [name, m] of this.#groups) {
      m.member = s.groups.includes(name);
      m.asking = false;
      if (m.member) for (const w of m.waiters.splice(0)) w.resolve();
      else this.#askJoin(name, m);
    }
  }

  #left(group, error) {
    const m = this.#groups.get(group);
    if (!m || m.asking) return;
    this.#unwant(group, error);
    this.#emit("left", { group, service: "", error }).forEach(quiet);
  }

  // ---- whom it watches ------------------------------------------------------------------------------------------------

  /** Asks the present session for what w wants; it has begun once every frame has its result. */
  #askWatch(w) {
    const frames = w.list ? [{ to: w.list }] : watchFrames(w.ids);
    let due = frames.length;
    for (const frame of frames) {
      this.#askSoon({ type: "watch", ...frame }, (f) => {
        if (!this.#watches.has(w)) return;
        const code = number(f.code);
        if (code !== codes.ok) return this.#unwatchable(w, new ImrouteError(code, text(f.text)));
        if (--due > 0 || w.begun) return;
        w.begun = true;
        w.began.resolve();
      });
    }
  }

  /** The cluster refuses: whoever waits for the beginning hears it, or else "unwatched" says so. */
  #unwatchable(w, error) {
    const ids = [...w.ids];
    this.#unwatch(w, ids, error);
    if (w.begun) this.#emit("unwatched", { ids, friends: w.list !== "", error }).forEach(quiet);
  }

  /** A node takes only so many of these frames without a result. answered hears the result, unless the session ends first. */
  #askSoon(frame, answered) {
    this.#watchQueue.push([frame, answered]);
    this.#askNext();
  }

  #askNext() {
    const s = this.#cur;
    while (s && this.#cur === s && this.#watchAsks < WATCH_ASKS && this.#watchQueue.length > 0) {
      const [frame, answered] = this.#watchQueue.shift();
      this.#watchAsks++;
      this.#ask(frame, (f) => {
        if (!f) return;
        this.#watchAsks--;
        answered(f);
        this.#askNext();
      });
    }
  }

  /** The next session is asked for everything anew. */
  #watchAll() {
    this.#watchQueue = [];
    this.#watchAsks = 0;
    for (const w of [...this.#watches]) this.#askWatch(w);
  }

  /** Takes ids out of w, which ends if none is left; tells the node whom nobody watches any more. */
  #unwatch(w, ids, why = new ImrouteError(codes.left, "ended before it began")) {
    if (!this.#watches.has(w)) return;
    for (const id of ids) {
      w.ids.delete(id);
      w.told.delete(id);
    }
    if (w.ids.size === 0) {
      this.#watches.delete(w);
      w.began.reject(why);
    }
    if (!this.#cur || this.#stopping) return;
    const left = [...this.#watches];
    const tell = (frame) => this.#askSoon(frame, () => {});
    const lists = left.some((o) => o.list);
    if (w.list && !lists) {
      tell({ type: "unwatch", to: w.list });
      // Friends who are watched by name as well went with the list.
      for (const frame of watchFrames(new Set(left.flatMap((o) => [...o.ids])))) tell({ type: "watch", ...frame });
    } else if (!lists) { // a friend may be among them; the few that are not end with the session
      for (const frame of watchFrames(ids.filter((id) => !left.some((o) => o.ids.has(id))))) tell({ type: "unwatch", ...frame });
    }
  }

  #saw(f) {
    const since = Number(u64(f, "since"));
    const p = { client: text(f.client), online: f.online === true, node: text(f.node), epoch: u64(f, "epoch"), since };
    for (const w of [...this.#watches]) {
      if (this.#watches.has(w) && (w.list ? text(f.to) !== "" : w.ids.has(p.client))) this.#tell(w, p); // a listener may have ended it
    }
  }

  /** Tells a state that adds something to what was told. Epochs of one id only rise. */
  #tell(w, p) {
    const last = w.told.get(p.client);
    if (last && p.online) {
      if (p.epoch < last.epoch || (p.epoch === last.epoch && !last.online)) return; // of a node that is behind
      if (last.online && p.epoch === last.epoch && p.node === last.node && (p.since === 0 || last.since !== 0)) return;
    } else if (last) {
      if (!last.online || (p.epoch !== 0n && p.epoch < last.epoch)) return;
      if (last.epoch > p.epoch) p = { ...p, epoch: last.epoch };
    }
    w.told.set(p.client, p);
    try {
      quiet(w.f(Object.freeze({ ...p, epoch: p.epoch.toString(), since: p.since ? new Date(p.since) : null })));
    } catch (err) {
      complain(err);
    }
  }

  // ---- what it serves -------------------------------------------------------------------------------------------------

  #askServe(v) {
    v.asking = true;
    this.#ask({ type: "join", kind: "service", to: v.name, count: v.capacity }, (f) => {
      if (!f || this.#services.get(v.name) !== v) return; // the next session asks again, or it was ended meanwhile
      v.asking = false;
      const code = number(f.code);
      if (code === codes.joined) {
        v.begun = true;
        v.began.resolve();
      } else if (code !== codes.unavailable) {
        this.#unserved(v.name, new ImrouteError(code, text(f.text)));
      }
    });
  }

  /** The cluster does not let it serve, or not any more. */
  #unserved(name, error) {
    const v = this.#services.get(name);
    if (!v || v.asking) return;
    this.#services.delete(name);
    v.began.reject(error);
    if (v.begun) this.#emit("left", { group: "", service: name, error }).forEach(quiet);
  }

  /** Ends v: no more requests come, and those that are being handled are waited for, within timeout; then their signals abort. */
  async #unserve(v, { timeout = 3_000 } = {}) {
    if (this.#services.get(v.name) === v) {
      this.#services.delete(v.name);
      if (this.#cur && !this.#stopping) await new Promise((resolve) => this.#ask({ type: "leave", kind: "service", to: v.name }, resolve));
    }
    let timer;
    const late = new Promise((resolve) => (timer = this.#env.setTimeout(resolve, timeout)));
    await Promise.race([Promise.all([...v.open].map((r) => r.done)), late]);
    this.#env.clearTimeout(timer);
    for (const r of v.open) r.cancel.abort(new ImrouteError(codes.left, "the service was ended"));
  }

  /** Has a request handled. */
  #given(f) {
    const cancel = new AbortController();
    const q = new Request(f, cancel.signal);
    const v = this.#services.get(q.service);
    if (!v) return this.#reply(q, encodePayload(`this instance does not serve ${q.service} any more`), faults.gone);
    if (v.open.size >= v.capacity) return this.#reply(q, encodePayload("this instance has as many requests as it takes"), faults.busy);
    const waits = Math.min(number(f.timeout_ms) || this.#cfg.timeout, 2 ** 31 - 1);
    const timer = this.#env.setTimeout(() => cancel.abort(new ImrouteError(codes.timeout, "the requester waits no longer")), waits);
    const r = { cancel, done: null };
    v.open.add(r);
    r.done = this.#handled(v, q).then(() => {
      this.#env.clearTimeout(timer);
      v.open.delete(r);
    });
  }

  async #handled(v, q) {
    try {
      const payload = encodePayload((await v.handler(q)) ?? "");
      this.#reply(q, payload, 0);
    } catch (err) {
      if (!(err instanceof Fault)) complain(err);
      const fault = err instanceof Fault ? err : new Fault(faults.internal, String(err?.message ?? err));
      this.#reply(q, encodePayload(fault.text), fault.code);
    }
  }

  /** Answers a message or a request. What becomes of the answer is told to nobody: who asked has a time-out. */
  #reply({ from, instance, id }, payload, fault) {
    const post = (payload, fault) => this.#post({ to: from, payload, answer: { re: id, re_instance: instance, ...(fault && { fault }) }, resolve() {}, reject() {} });
    try {
      post(payload, fault);
    } catch (err) {
      if (this.#error) return;
      try { // too large, say: the requester should hear of it at once
        post(encodePayload(`the answer could not be sent: ${err.message}`), fault || faults.internal);
      } catch {
        // there is no room for that either
      }
    }
  }

  /**
   * Takes an answer. It must come from whom was asked: from the client, or one who was given the request, which is known by
   * the instance that only those have seen. One that nobody waits for any more is dropped.
   */
  #answered(f) {
    const ask = this.#asks.get(u64(f, "re").toString());
    const instance = u64(f, "re_instance").toString();
    if (!ask) return;
    if (ask.kind === "service" ? instance !== serviceInstance(this.#instance, ask.to) : instance !== this.#sender || !standsFor(f.from, ask.to)) return;
    const reply = new Reply(f, this.#env.now() - ask.start);
    const fault = number(f.fault);
    this.#answerWith(ask, fault ? new Fault(fault, reply.text) : reply);
  }

  // ---- what is received -----------------------------------------------------------------------------------------------

  #deliver(s, f) {
    const epoch = u64(f, "epoch");
    const id = u64(f, "id");
    const instance = u64(f, "instance");
    if (!text(f.from) || !instance || !id || !epoch) return ending(codes.protocol_error, "deliver without from, instance, id or epoch");
    if (this.#stopping || epoch < this.#epoch) return null;
    this.#epoch = epoch;
    const seen = this.#seen.sender(instance.toString());
    if (!seen.add(id)) {
      if (f.ack === "client" && seen.acked.has(id)) this.#acknowledge(instance.toString(), id);
      return null;
    }
    if (u64(f, "re") !== 0n || f.kind === "service") {
      if (f.ack === "client") this.#acknowledge(instance.toString(), id);
      if (u64(f, "re") !== 0n) this.#answered(f);
      else this.#given(f);
      return null;
    }
    const m = new Message((m) => this.#acknowledge(m.instance, BigInt(m.id)), (...args) => this.#reply(...args), f);
    const results = this.#emit("message", m);
    const byUs = m.wantsAck && !this.#cfg.manualAck && results.length > 0 && !results.includes(FAILED);
    if (!byUs) results.forEach(quiet);
    else if (results.some((r) => typeof r?.then === "function")) Promise.all(results).then(() => m.ack(), complain);
    else m.ack();
    return null;
  }

  #acknowledge(instance, id) {
    const seen = this.#seen.sender(instance);
    if (seen.find(id)[1]) seen.acked.add(id); // should the message come again over a new session, it is acknowledged there
    if (this.#cur?.open && this.#cur.ws.bufferedAmount < 2 * this.#cfg.queueBytes) this.#write(this.#cur, { type: "ack", instance, id: id.toString() });
  }
}

// ---- small things -----------------------------------------------------------------------------------------------------

function kicked(f) {
  const code = number(f.code);
  if (!code) return ending(codes.protocol_error, "kick without a code");
  return ending(code, text(f.text), { told: true, retry: number(f.retry_ms), addrs: texts(f.addrs) });
}

function checkTo(kind, to) {
  if (!KINDS.has(kind)) throw new ImrouteError(codes.bad_request, `kind ${JSON.stringify(kind)}: want ${[...KINDS].join(", ")}`);
  if (typeof to !== "string") throw new ImrouteError(codes.bad_request, "recipient: want a string");
  if (kind === "all" || kind === "others") {
    if (to !== "") throw new ImrouteError(codes.bad_request, `recipient: must be empty, kind ${kind} means everybody`);
    return to;
  }
  const wrong = badName(to) || (kind === "user" && to.includes("/") ? "a user's id has no '/'" : "");
  if (wrong) throw new ImrouteError(codes.bad_request, `recipient: ${wrong}`);
  return to;
}

/** What is wrong with an id or a name; a node ends the session over such a one. */
function badName(s) {
  const bytes = byteLength(s);
  if (bytes === 0 || bytes > 255) return "want 1 to 255 bytes";
  if (/[\u0000-\u001f\u007f-\u009f]/.test(s)) return "control characters are not allowed";
  if (s.includes("*")) return "'*' is not allowed, it is kept for patterns";
  if (decoder.decode(encoder.encode(s)) !== s) return "a surrogate without its other half is no text";
  return "";
}

/** Splits ids over frames as large as a node takes. */
function watchFrames(ids) {
  const frames = [];
  let bytes = Infinity;
  for (const id of ids) {
    const n = byteLength(id) + 3;
    if (bytes + n > WATCH_BYTES || frames.at(-1).ids.length === WATCH_IDS) {
      frames.push({ ids: [] });
      bytes = 0;
    }
    frames.at(-1).ids.push(id);
    bytes += n;
  }
  return frames;
}

function loginGroups(names) {
  let bytes = 0;
  const i = names.findIndex((n, i) => (bytes += byteLength(n) + 3) > LOGIN_GROUP_BYTES || i === LOGIN_GROUPS);
  return i < 0 ? names : names.slice(0, i);
}

function randomID() {
  const v = new BigUint64Array(1);
  do crypto.getRandomValues(v);
  while (v[0] === 0n);
  return v[0].toString();
}

function withResolvers() {
  const r = {};
  r.promise = new Promise((resolve, reject) => Object.assign(r, { resolve, reject }));
  return r;
}

/** An exception of the application's is the application's: it is shown, and ends nothing here. */
function complain(err) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(err);
  else console.error(err);
}

function quiet(r) {
  if (typeof r?.then === "function") r.then(undefined, complain);
}
