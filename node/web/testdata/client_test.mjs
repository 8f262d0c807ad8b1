// Tests of imroute.js in virtual time, against nodes that the test plays itself. They run in whatever JavaScript engine is
// there: run(module) resolves with [{name, error}].

class Clock {
  now = 1_000;
  timers = new Map();
  next = 1;
  set = (f, ms) => (this.timers.set(this.next, { f, at: this.now + ms }), this.next++);
  clear = (id) => this.timers.delete(id);
  async settle() {
    for (let i = 0; i < 20; i++) await Promise.resolve();
  }
  async advance(ms) {
    const end = this.now + ms;
    await this.settle();
    for (;;) {
      let due = null;
      for (const [id, t] of this.timers) if (t.at <= end && (!due || t.at < due.at)) due = { id, ...t };
      if (!due) break;
      this.timers.delete(due.id);
      this.now = Math.max(this.now, due.at);
      due.f();
      await this.settle();
    }
    this.now = end;
    await this.settle();
  }
}

/** World is a browser and all nodes: sockets are in the order they were opened. */
class World {
  clock = new Clock();
  sockets = [];
  random = 0;
  constructor() {
    const w = this;
    this.WebSocket = class {
      readyState = 0;
      bufferedAmount = 0;
      sent = [];
      constructor(url, protocol) {
        this.url = url;
        this.protocol = protocol;
        w.sockets.push(this);
      }
      send(text) {
        if (this.readyState !== 1) throw new Error("not open");
        this.sent.push(JSON.parse(text));
      }
      close() {
        this.readyState = 3;
      }
      // the node's side
      accept() {
        this.readyState = 1;
        this.onopen?.();
        return this;
      }
      say(frame) {
        this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
        return this;
      }
      welcome(more) {
        return this.say({ type: "welcome", epoch: "7", instance: "5", node: "n1", idle_ms: 30000, max_payload: 1000, ...more });
      }
      drop(code = 1006, reason = "") {
        this.readyState = 3;
        this.onclose?.({ code, reason });
      }
      take(type) {
        const i = this.sent.findIndex((f) => f.type === type);
        return i < 0 ? undefined : this.sent.splice(i, 1)[0];
      }
    };
  }
  get last() {
    return this.sockets.at(-1);
  }
  client(module, config) {
    const c = new module.Client({
      client: "ann",
      addrs: ["n1:1", "n2:2", "n3:3"],
      environment: { WebSocket: this.WebSocket, now: () => this.clock.now, setTimeout: this.clock.set, clearTimeout: this.clock.clear, random: () => this.random },
      ...config,
    });
    c.states = [];
    c.got = [];
    c.on("state", (s) => c.states.push(s));
    return c;
  }
  /** A client that is logged in at n1. */
  async up(module, config, welcome) {
    const c = this.client(module, config);
    c.on("message", (m) => void c.got.push(m.text));
    const up = c.connect();
    await this.clock.advance(0);
    this.last.accept().welcome(welcome);
    await up;
    return c;
  }
}

const equal = (got, want, what = "value") => {
  const [g, w] = [JSON.stringify(got), JSON.stringify(want)];
  if (g !== w) throw new Error(`${what}: got ${g}, want ${w}`);
};
const ok = (v, what) => {
  if (!v) throw new Error(what);
};
const outcome = (p) => {
  const o = { settled: false };
  p.then((v) => Object.assign(o, { settled: true, value: v }), (e) => Object.assign(o, { settled: true, error: e }));
  return o;
};
const closed = (c) => c.states.findLast((s) => s.kind === "closed");
const deliver = (id, more) => ({ type: "deliver", from: "bob", instance: "9", id: String(id), epoch: "7", payload: `m${id}`, ...more });

const tests = {
  async "login says who, and numbers of 64 bits keep all their bits"(m, w) {
    const c = w.client(m, { groups: ["lobby"], tenant: "t", token: "secret" });
    const acks = [];
    c.on("message", (msg) => acks.push([msg.instance, msg.id, msg.epoch, msg.text, [...msg.bytes]]));
    const up = c.connect();
    await w.clock.advance(0);
    equal(w.last.url, "ws://n1:1/v1/ws");
    equal(w.last.protocol, "imroute.v1.json");
    w.last.accept();
    const login = w.last.take("login");
    ok(/^[1-9]\d*$/.test(login.instance), "instance");
    equal({ ...login, instance: 0 }, { type: "login", version: 1, client: "ann", instance: 0, attempt: "1", tenant: "t", token: "secret", groups: ["lobby"] });
    w.last.welcome({ epoch: "18446744073709551614" });
    await up;
    w.last.say({ type: "deliver", from: "bob", instance: "18446744073709551615", id: "9007199254740993", epoch: "18446744073709551614", ack: "client", payload: "é" });
    equal(acks, [["18446744073709551615", "9007199254740993", "18446744073709551614", "é", [195, 169]]]);
    equal(w.last.take("ack"), { type: "ack", instance: "18446744073709551615", id: "9007199254740993" });
    // its neighbour, which a double could not tell from it, is another message
    w.last.say({ type: "deliver", from: "bob", instance: "18446744073709551615", id: "9007199254740992", epoch: "18446744073709551614", payload_b64: "/wA=" });
    equal(acks[1].slice(3), ["\ufffd\0", [255, 0]]);
  },

  async "malformed numbers cost the session"(m, w) {
    const c = await w.up(m);
    w.last.say({ ...deliver(1), instance: 9007199254740993 });
    equal(closed(c).reason, "protocol_error");
    await w.clock.advance(1);
    w.last.accept().welcome({ epoch: "8" });
    w.last.say({ ...deliver(1), epoch: "8", id: "18446744073709551616" });
    equal(closed(c).reason, "protocol_error");
  },

  async "a send resolves with its result, or rejects with its code"(m, w) {
    const c = await w.up(m);
    const a = outcome(c.send("bob", "hi", { ack: "client" }));
    const b = outcome(c.send("", new Uint8Array([1, 255]), { kind: "all", timeout: 800 }));
    equal(w.last.take("send"), { type: "send", id: "1", to: "bob", ack: "client", payload: "hi", timeout_ms: 4750 });
    equal(w.last.take("send"), { type: "send", id: "2", to: "", kind: "all", ack: "owner", payload_b64: "Af8=", timeout_ms: 700 });
    await w.clock.advance(40);
    w.last.say({ type: "result", id: "2", code: m.codes.offline });
    w.last.say({ type: "result", id: "1", code: 1, node: "n2", count: 3, missed: 2, missed_ids: ["bob", "eve/web"] });
    await w.clock.settle();
    equal(a.value, { code: 1, reason: "delivered", id: "1", node: "n2", count: 3, missed: 2, missedIds: ["bob", "eve/web"], text: "", rtt: 40 });
    ok(b.error instanceof m.ImrouteError && b.error.reason === "offline" && b.error.class === "final" && b.error.result.id === "2", "offline");
    for (const [args, reason] of [
      [["", "x"], "bad_request"],
      [["bob", "x", { kind: "everyone" }], "bad_request"],
      [["bob", "x", { ack: "maybe" }], "bad_request"],
      [["bob", "x".repeat(1001)], "too_large"],
      [["bob", 5], "bad_request"],
      [["bob", null], "bad_request"],
    ]) {
      const o = outcome(c.send(...args));
      await w.clock.settle();
      equal(o.error?.reason, reason, JSON.stringify(args).slice(0, 50));
    }
  },

  async "what is pending goes to the next node under its old id"(m, w) {
    const c = await w.up(m);
    const first = w.last.take("login");
    const a = outcome(c.send("bob", "one"));
    const none = outcome(c.send("bob", "gone", { ack: "none" }));
    await w.clock.advance(1000);
    w.last.drop();
    equal(closed(c), { kind: "closed", code: m.codes.connection_lost, reason: "connection_lost", text: "the connection broke", retrying: true, afterMs: 0 });
    const b = outcome(c.send("bob", "two", { ack: "none" }));
    await w.clock.advance(1);
    equal(w.last.url, "ws://n2:2/v1/ws");
    w.last.accept().welcome({ epoch: "8", node: "n2" });
    const second = w.last.take("login");
    equal([second.instance, second.attempt], [first.instance, "2"]);
    equal(w.last.sent.map((f) => [f.type, f.id, f.payload]), [["send", "1", "one"], ["send", "3", "two"]]);
    ok(w.last.sent[0].timeout_ms < 4000, "less time is left");
    w.last.say({ type: "result", id: "1", code: 1 });
    await w.clock.settle();
    ok(a.value.code === 1 && b.value.code === 0 && none.value.code === 0, "all settled");
    equal(c.pending, 0);
  },

  async "no message twice, over sessions too, and an acknowledged one is acknowledged again"(m, w) {
    const c = await w.up(m);
    w.last.say(deliver(1, { ack: "client" })).say(deliver(2)).say(deliver(1, { ack: "client" })).say(deliver(1, { instance: "10" }));
    equal(c.got, ["m1", "m2", "m1"]);
    equal(w.last.sent.filter((f) => f.type === "ack").length, 2);
    w.last.drop();
    await w.clock.advance(1);
    w.last.accept().welcome({ epoch: "8" });
    w.last.say(deliver(1, { epoch: "8", ack: "client" })).say(deliver(3, { epoch: "8" })).say(deliver(4));
    equal(c.got, ["m1", "m2", "m1", "m3"], "4 is of a past epoch");
    equal(w.last.take("ack"), { type: "ack", instance: "9", id: "1" });
    for (let i = 5; i < 4000; i++) w.last.say(deliver(i, { epoch: "8" }));
    w.last.say(deliver(3999, { epoch: "8" })).say(deliver(3000, { epoch: "8" }));
    equal(c.got.length, 4 + 3995);
    w.last.say(deliver(1, { epoch: "8" })); // beyond the window: losing it would be worse
    equal(c.got.length, 4 + 3996);
  },

  async "listeners that fail or are not done leave a message unacknowledged"(m, w) {
    const shown = [];
    const report = globalThis.reportError;
    const error = console.error;
    globalThis.reportError = (e) => shown.push(e.message);
    console.error = globalThis.reportError;
    try {
      const c = w.client(m);
      let done;
      c.on("message", (msg) => {
        if (msg.text === "m1") throw new Error("one");
        if (msg.text === "m2") return Promise.reject(new Error("two"));
        return new Promise((r) => (done = r));
      });
      c.connect();
      await w.clock.advance(0);
      w.last.accept().welcome();
      w.last.say(deliver(1, { ack: "client" })).say(deliver(2, { ack: "client" })).say(deliver(3, { ack: "client" }));
      await w.clock.settle();
      equal(shown, ["one", "two"]);
      equal(w.last.take("ack"), undefined);
      done();
      await w.clock.settle();
      equal(w.last.take("ack").id, "3");
    } finally {
      globalThis.reportError = report;
      console.error = error;
    }
  },

  async "a final code ends it, with everything that waits"(m, w) {
    const c = await w.up(m);
    const a = outcome(c.send("bob", "x"));
    const j = outcome(c.join("lobby"));
    w.last.say({ type: "kick", code: m.codes.replaced, text: "by another" });
    await c.done;
    await w.clock.settle();
    equal(c.error.reason, "replaced");
    equal(c.states.at(-1).retrying, false);
    equal([a.error.reason, j.error.reason], ["unknown", "replaced"]);
    await w.clock.advance(100_000);
    equal(w.sockets.length, 1);
    const b = outcome(c.send("bob", "x"));
    await w.clock.settle();
    equal(b.error.reason, "replaced");
  },

  async "retry-here comes back to the same node, retry-elsewhere to those it named first"(m, w) {
    const c = await w.up(m);
    w.last.say({ type: "kick", code: m.codes.slow_reader });
    await w.clock.advance(1);
    equal(w.last.url, "ws://n1:1/v1/ws");
    w.last.accept().welcome({ epoch: "8" });
    w.last.say({ type: "kick", code: m.codes.lease_lost, addrs: ["n9:9"] });
    await w.clock.advance(100);
    equal(w.last.url, "ws://n9:9/v1/ws");
    const seen = [];
    for (let i = 0; i < 4; i++) {
      w.last.drop();
      await w.clock.advance(400);
      seen.push(w.last.url.slice(5, 9));
    }
    equal(seen, ["n2:2", "n3:3", "n1:1", "n1:1"], "round, then the configured ones again");
  },

  async "pauses grow, have a limit, and heed what the node asks for"(m, w) {
    w.random = 0.5;
    const c = w.client(m, { addrs: ["n1"] });
    c.connect().catch(() => {});
    const pauses = [];
    for (let i = 0; i < 12; i++) {
      await w.clock.advance(0);
      const before = w.sockets.length;
      w.last.drop();
      const at = w.clock.now;
      while (w.sockets.length === before) await w.clock.advance(1);
      pauses.push(w.clock.now - at);
    }
    equal(pauses.slice(0, 4), [25, 38, 75, 150]);
    equal(pauses.at(-1), 3750);
    w.last.accept().say({ type: "kick", code: m.codes.busy, retry_ms: 8000 });
    equal(c.states.at(-1).afterMs, 9000);
  },

  async "a close code stands in for a kick that was lost"(m, w) {
    const c = await w.up(m);
    w.last.drop(4000 + m.codes.kicked, "kicked");
    await c.done;
    equal(c.error.reason, "kicked");
  },

  async "an expired token is replaced by the callback"(m, w) {
    const tokens = ["one", new Error("identity provider is down"), "two"];
    const c = w.client(m, {
      tokenSource: async () => {
        const t = tokens.shift();
        if (t instanceof Error) throw t;
        return t;
      },
    });
    c.connect();
    await w.clock.advance(0);
    w.last.accept();
    equal(w.last.take("login").token, "one");
    w.last.welcome().say({ type: "kick", code: m.codes.token_expired });
    await w.clock.advance(0);
    equal(c.states.at(-1).text, "asking tokenSource: identity provider is down");
    await w.clock.advance(1000);
    w.last.accept();
    equal(w.last.take("login").token, "two");
    equal(w.last.url, "ws://n1:1/v1/ws");

    const fixed = w.client(m, { token: "old" });
    const up = outcome(fixed.connect());
    await w.clock.advance(0);
    w.last.accept().say({ type: "kick", code: m.codes.token_expired });
    await w.clock.settle();
    equal(up.error.reason, "token_expired", "there is no other token");
    const refusing = w.client(m, { tokenSource: () => { throw new m.ImrouteError(m.codes.forbidden, "locked out"); } });
    const no = outcome(refusing.connect());
    await w.clock.advance(0);
    equal(no.error.reason, "forbidden");
  },

  async "goaway: the next session is there before the former one ends, and nothing overtakes"(m, w) {
    const c = await w.up(m);
    const old = w.last;
    old.say({ type: "goaway", code: m.codes.draining, addrs: ["n3:3"] });
    await w.clock.advance(50);
    equal(w.last.url, "ws://n3:3/v1/ws");
    const a = outcome(c.send("bob", "meanwhile"));
    equal(old.take("send").payload, "meanwhile");
    w.last.accept().welcome({ epoch: "8", node: "n3" });
    w.last.say(deliver(2, { epoch: "8" }));
    old.say(deliver(1)); // the cluster delivered it before
    old.say({ type: "result", id: "1", code: m.codes.unavailable }); // says nothing about the repetition
    equal(c.got, ["m1"]);
    old.say({ type: "kick", code: m.codes.superseded });
    equal(c.got, ["m1", "m2"]);
    equal(w.last.take("send").id, "1");
    w.last.say({ type: "result", id: "1", code: 1 });
    await w.clock.settle();
    equal(a.value.code, 1);
    equal(c.states.filter((s) => s.kind === "closed"), []);
    // one that does not end is not waited for for long
    w.last.say({ type: "goaway", code: m.codes.draining, addrs: ["n2:2"] });
    await w.clock.advance(50);
    w.last.accept().welcome({ epoch: "9", node: "n2" }).say(deliver(3, { epoch: "9" }));
    equal(c.got.length, 2);
    await w.clock.advance(2001);
    equal(c.got, ["m1", "m2", "m3"]);
  },

  async "a move that fails leaves the session alone, one that works takes over"(m, w) {
    const c = await w.up(m);
    const first = w.last;
    const bad = outcome(c.move("n7:7"));
    await w.clock.advance(0);
    equal(w.last.url, "ws://n7:7/v1/ws");
    w.last.drop();
    await w.clock.advance(10_000);
    equal([bad.error.reason, c.state.kind, w.sockets.length], ["connection_lost", "connected", 2]);
    const good = outcome(c.move("n2:2"));
    await w.clock.advance(0);
    w.last.accept().welcome({ epoch: "8", node: "n2" });
    await w.clock.settle();
    equal([good.value, c.state.node, first.readyState], ["n2", "n2", 1]);
    const silly = outcome(c.move("http://x"));
    await w.clock.settle();
    equal(silly.error.reason, "bad_request");
  },

  async "silence: a ping after a third of idle, the end after another; sooner with an answer due"(m, w) {
    const c = await w.up(m);
    await w.clock.advance(9_999);
    equal(w.last.take("ping"), undefined);
    await w.clock.advance(2);
    ok(w.last.take("ping"), "ping");
    w.last.say({ type: "pong" });
    await w.clock.advance(10_001);
    ok(w.last.take("ping"), "ping again");
    await w.clock.advance(9_990);
    equal(c.state.kind, "connected");
    await w.clock.advance(220);
    equal(closed(c).reason, "idle_timeout");
    w.last.accept().welcome({ epoch: "8" });
    const a = outcome(c.send("bob", "x", { timeout: 20_000 }));
    await w.clock.advance(1_001);
    ok(w.last.take("ping"), "asks");
    await w.clock.advance(2_300);
    equal(w.last.url, "ws://n3:3/v1/ws", "and goes elsewhere");
    w.last.accept().welcome({ epoch: "9" }).say({ type: "result", id: "1", code: 1 });
    await w.clock.settle();
    equal(a.value.code, 1);
  },

  async "a page that stood still does not blame the node"(m, w) {
    const c = await w.up(m);
    await w.clock.advance(10_001);
    ok(w.last.take("ping"), "ping");
    // the page freezes: timers are late, and what came is read behind them
    w.clock.now += 60_000;
    await w.clock.advance(0);
    equal(c.state.kind, "connected");
    await w.clock.advance(100);
    w.last.say({ type: "pong" });
    await w.clock.advance(5_000);
    equal(c.state.kind, "connected");
    equal(w.sockets.length, 1);
    // and again, but now nothing came
    await w.clock.advance(5_001);
    ok(w.last.take("ping"), "ping");
    w.clock.now += 60_000;
    await w.clock.advance(300);
    equal(w.sockets.length, 2);
  },

  async "time-outs say whether anything left; what a node says later is no news"(m, w) {
    const c = await w.up(m);
    const refused = [];
    c.on("refused", (r) => refused.push([r.id, r.reason]));
    const a = outcome(c.send("bob", "a", { timeout: 500 }));
    await w.clock.advance(600);
    equal(a.error.reason, "timeout");
    w.last.say({ type: "result", id: "1", code: m.codes.offline });
    w.last.drop();
    const b = outcome(c.send("bob", "b", { timeout: 500 }));
    const n = outcome(c.send("bob", "n", { timeout: 500, ack: "none" }));
    const controller = new AbortController();
    const d = outcome(c.send("bob", "d", { signal: controller.signal }));
    controller.abort(new Error("enough"));
    await w.clock.advance(600);
    equal([b.error.reason, n.value.code, d.error.reason, d.error.cause.message], ["unavailable", 0, "unavailable", "enough"]);
    equal(refused, [["3", "unavailable"]]);
    equal(c.pending, 0);
  },

  async "groups: named by the login, joined behind it, kept over reconnects"(m, w) {
    const c = w.client(m, { groups: ["a"] });
    const left = [];
    c.on("left", (l) => left.push([l.group, l.error.reason]));
    const early = outcome(c.join("b"));
    c.connect();
    await w.clock.advance(0);
    w.last.accept();
    equal(w.last.take("login").groups, ["b", "a"].sort());
    const later = outcome(c.join("c"));
    w.last.welcome();
    await w.clock.settle();
    ok(early.settled, "b holds with welcome");
    const join = w.last.take("join");
    equal(join, { type: "join", to: "c", id: "1" });
    ok(!later.settled, "not before the cluster knows");
    w.last.say({ type: "result", id: "1", code: m.codes.joined });
    await w.clock.settle();
    ok(later.settled && !later.error, "joined");
    const no = outcome(c.join("d"));
    w.last.say({ type: "result", id: w.last.take("join").id, code: m.codes.forbidden });
    await w.clock.settle();
    equal(no.error.reason, "forbidden");
    w.last.say({ type: "leave", to: "a", code: m.codes.group_closed });
    equal(left, [["a", "group_closed"]]);
    const leave = outcome(c.leave("b"));
    w.last.say({ type: "result", id: w.last.take("leave").id, code: m.codes.left });
    await w.clock.settle();
    ok(leave.settled && !leave.error, "left");
    w.last.drop();
    await w.clock.advance(1);
    w.last.accept();
    equal(w.last.take("login").groups, ["c"]);
    equal(c.groups, ["c"]);
    const many = w.client(m, { groups: Array.from({ length: 70 }, (_, i) => `g${i}`) });
    many.connect();
    await w.clock.advance(0);
    w.last.accept();
    equal(w.last.take("login").groups.length, 64);
    w.last.welcome();
    equal(w.last.sent.filter((f) => f.type === "join").length, 6);
  },

  async "bounds: bytes, answers that are due, and what the browser holds"(m, w) {
    const c = await w.up(m, { queueBytes: 1000, maxInFlight: 3 });
    const sock = w.last;
    sock.bufferedAmount = 1 << 20;
    const a = outcome(c.send("bob", "x".repeat(500), { ack: "none", timeout: 60_000 }));
    equal(sock.take("send"), undefined, "it waits here while the network is slow");
    const b = outcome(c.send("bob", "x".repeat(500)));
    await w.clock.settle();
    equal([a.value.code, b.error.reason], [0, "overloaded"]);
    sock.bufferedAmount = 0;
    await w.clock.advance(50);
    ok(sock.take("send"), "now it left");
    equal(c.pending, 0);
    for (let i = 0; i < 3; i++) c.send("bob", "x").catch(() => {});
    const d = outcome(c.send("bob", "x"));
    await w.clock.settle();
    equal(d.error.reason, "overloaded");
  },

  async "frames of later versions are events, and requests hear their result"(m, w) {
    const c = await w.up(m);
    const seen = [];
    c.on("presence", (f) => seen.push(["presence", f.client]));
    c.on("frame", (f) => seen.push(["frame", f.type]));
    w.last.say({ type: "presence", client: "bob" });
    equal(seen, [["presence", "bob"], ["frame", "presence"]]);
    w.last.say({ type: "state", kind: "closed" });
    equal([seen.at(-1), c.states.length], [["frame", "state"], 2], "no frame poses as an event of ours");
    const r = outcome(c.request({ type: "watch", to: "bob" }));
    const sent = w.last.take("watch");
    equal(sent, { type: "watch", to: "bob", id: "1" });
    w.last.say({ type: "result", id: "1", code: 1, count: 4 });
    await w.clock.settle();
    equal([r.value.reason, r.value.count], ["delivered", 4]);
    const lost = outcome(c.request({ type: "watch", to: "eve" }));
    w.last.drop();
    await w.clock.settle();
    equal(lost.error.reason, "connection_lost");
  },

  async "close lets what was queued leave and says bye"(m, w) {
    const c = await w.up(m);
    const a = outcome(c.send("bob", "last words"));
    const done = outcome(c.close());
    equal(w.last.sent.slice(-2).map((f) => f.type), ["send", "bye"]);
    w.last.say({ type: "result", id: "1", code: 1 });
    w.last.say({ type: "kick", code: m.codes.bye });
    await w.clock.settle();
    ok(done.settled && a.value?.code === 1, "closed");
    equal([c.error.reason, c.state.kind], ["bye", "closed"]);
    equal(w.clock.timers.size, 0, "timers left behind");
    const silent = await w.up(m);
    const waits = outcome(silent.close());
    await w.clock.advance(1_100);
    ok(waits.settled, "a node that does not answer is not waited for");
  },

  async "a cluster that was set back is refused"(m, w) {
    const c = await w.up(m, {}, { epoch: "70" });
    w.last.drop();
    await w.clock.advance(1);
    w.last.accept().welcome({ epoch: "3" });
    ok(c.states.at(-1).text.includes("another cluster"), c.states.at(-1).text);
  },

  async "waiting extends the login, silence ends it"(m, w) {
    const c = w.client(m);
    c.connect().catch(() => {});
    await w.clock.advance(0);
    const first = w.last;
    first.accept().say({ type: "waiting", timeout_ms: 15_000 });
    equal(c.states.at(-1), { kind: "waiting", addr: "ws://n1:1/v1/ws", leftMs: 15_000 });
    await w.clock.advance(24_000);
    equal(w.sockets.length, 1);
    await w.clock.advance(2_000);
    equal(w.sockets.length, 2);
    await w.clock.advance(3_100); // never accepted
    equal(w.sockets.length, 3);
    const up = outcome(c.connect());
    c.close();
    await w.clock.settle();
    equal(up.error?.reason, "bye");
  },

  async "connect gives up when its signal says so"(m, w) {
    const c = w.client(m);
    const controller = new AbortController();
    const up = outcome(c.connect({ signal: controller.signal }));
    await w.clock.advance(0);
    w.last.drop();
    controller.abort();
    await w.clock.settle();
    ok(up.error.text.includes("connection_lost"), up.error.text);
    await w.clock.advance(60_000);
    equal(w.clock.timers.size, 0, "timers left behind");
  },

  async "what was secure never becomes plain"(m, w) {
    const c = w.client(m, { addrs: ["wss://n1"] });
    c.connect();
    await w.clock.advance(0);
    w.last.accept().welcome({ addrs: ["n2:2", "ws://n3:3", "wss://n4/other"] });
    equal(c.addrs, ["wss://n1/v1/ws", "wss://n2:2/v1/ws", "wss://n4/other"]);
  },

  async "configuration at fault is named"(m, w) {
    for (const [cfg, word] of [
      [{ client: "" }, "client"],
      [{ addrs: [] }, "addrs"],
      [{ addrs: ["http://x"] }, "addrs"],
      [{ addrs: ["ws://user@x"] }, "addrs"],
      [{ timeout: -1 }, "timeout"],
      [{ queueBytes: 0 }, "queueBytes"],
      [{ groups: [""] }, "recipient"],
    ]) {
      let err;
      try {
        w.client(m, cfg);
      } catch (e) {
        err = e;
      }
      ok(err?.message.includes(word), `${JSON.stringify(cfg)}: ${err?.message}`);
    }
  },

  async "codes: what is not known yet is tried elsewhere"(m) {
    equal([m.codeName(1), m.codeClass(1), m.codeName(9999), m.codeClass(9999)], ["delivered", "final", "code_9999", "retry-elsewhere"]);
    equal(m.codes.replaced, 101);
  },
};

export async function run(module) {
  const results = [];
  for (const [name, test] of Object.entries(tests)) {
    let error = "";
    try {
      await test(module, new World());
    } catch (e) {
      error = String(e?.stack ?? e);
    }
    results.push({ name, error });
  }
  return results;
}
