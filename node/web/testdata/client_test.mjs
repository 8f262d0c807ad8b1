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

  async "a large frame on its way is no silence"(m, w) {
    const c = await w.up(m, {}, { max_payload: 100_000 });
    const a = outcome(c.send("bob", "x", { timeout: 60_000 }));
    w.last.say({ type: "pong", count: 320_000 }); // at the slowest, 10 s
    await w.clock.advance(12_900);
    equal(c.state.kind, "connected");
    w.last.say({ type: "deliver", from: "bob", instance: "9", id: "1", epoch: "7", payload: "large" });
    w.last.say({ type: "result", id: "1", code: 1 });
    await w.clock.settle();
    equal(a.value.code, 1);
    // it came: from now on silence counts as before
    outcome(c.send("bob", "y", { timeout: 60_000 }));
    await w.clock.advance(3_300);
    equal(closed(c).reason, "idle_timeout");
    // and nobody can announce more than a frame can hold
    w.last.accept().welcome({ epoch: "8" }).say({ type: "pong", count: 2 ** 31 });
    await w.clock.advance(4_000);
    equal(w.sockets.length, 3);
  },

  async "a large frame that the system took from the browser is still on its way"(m, w) {
    const c = await w.up(m, {}, { max_payload: 1 << 20 });
    const a = outcome(c.send("bob", "x".repeat(640_000), { timeout: 60_000 })); // at the slowest, 20 s; bufferedAmount stays 0
    await w.clock.advance(20_000);
    equal(c.state.kind, "connected");
    w.last.say({ type: "pong" }).say({ type: "result", id: "1", code: 1 });
    await w.clock.settle();
    equal([a.value.code, w.sockets.length], [1, 1]);
    // it arrived: from now on silence counts as before
    outcome(c.send("bob", "y", { timeout: 60_000 }));
    await w.clock.advance(3_300);
    equal(closed(c).reason, "idle_timeout");
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

  async "frames of later versions are events, and an exchange hears its result"(m, w) {
    const c = await w.up(m);
    const seen = [];
    c.on("weather", (f) => seen.push(["weather", f.client]));
    c.on("frame", (f) => seen.push(["frame", f.type]));
    w.last.say({ type: "weather", client: "bob" });
    equal(seen, [["weather", "bob"], ["frame", "weather"]]);
    w.last.say({ type: "state", kind: "closed" });
    equal([seen.at(-1), c.states.length], [["frame", "state"], 2], "no frame poses as an event of ours");
    const r = outcome(c.exchange({ type: "forecast", to: "bob" }));
    const sent = w.last.take("forecast");
    equal(sent, { type: "forecast", to: "bob", id: "1" });
    w.last.say({ type: "result", id: "1", code: 1, count: 4 });
    await w.clock.settle();
    equal([r.value.reason, r.value.count], ["delivered", 4]);
    const lost = outcome(c.request({ type: "forecast", to: "eve" })); // its former name
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

  async "text that escapes blow up travels as bytes; what is no payload is refused"(m, w) {
    const c = await w.up(m);
    const sent = () => {
      const { payload, payload_b64 } = w.last.take("send");
      return payload_b64 === undefined ? payload : `b64 ${payload_b64}`;
    };
    const send = (payload) => (c.send("bob", payload, { ack: "none" }), sent());
    equal(send("\u0001".repeat(1000)), `b64 ${btoa("\u0001".repeat(1000))}`, "6000 bytes in JSON");
    equal(send('"'.repeat(999)), `b64 ${btoa('"'.repeat(999))}`);
    equal(send('say "hello"\nto \u00e9\u{1f600}, and to everybody else who listens'), 'say "hello"\nto \u00e9\u{1f600}, and to everybody else who listens', "a few escapes are nothing");
    equal([send("\ud800x"), send("x\udc00")], ["\ufffdx", "x\ufffd"], "half a surrogate pair");
    equal([send(""), send(new Uint8Array())], ["", "b64 "]);
    const big = outcome(c.send("bob", "\u0001".repeat(1001)));
    const missing = outcome(c.send("bob"));
    await w.clock.settle();
    equal(big.error.reason, "too_large");
    ok(missing.error instanceof TypeError && missing.error.message.includes("payload is missing"), String(missing.error));
    for (const to of ["a\u0001b", "a*", "\ud800", "a\u0085", "x".repeat(256), ""]) {
      const o = outcome(c.send(to, "x"));
      await w.clock.settle();
      equal(o.error?.reason, "bad_request", JSON.stringify(to));
    }
    equal(c.state.kind, "connected");
    let got;
    c.on("message", (msg) => (got = [msg.text, msg.bytes.length]));
    w.last.say({ ...deliver(1), payload: undefined });
    equal(got, ["", 0], "an empty payload has no field");
    w.last.say({ ...deliver(2), payload: undefined, payload_b64: "77u/w78=" });
    equal(got, ["\ufeff\u00ff", 5], "a byte order mark is text like any other");
  },

  async "sha256 and the instance of a service's requests"(m) {
    const hex = (s) => [...m.sha256(new TextEncoder().encode(s))].map((b) => b.toString(16).padStart(2, "0")).join("");
    for (const [s, want] of [
      ["", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
      ["abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"],
      ["abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"],
      ["a".repeat(1000), "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"],
    ]) equal(hex(s), want, s.slice(0, 10));
    for (let n = 0; n < 200; n++) {
      const b = crypto.getRandomValues(new Uint8Array(n));
      if (crypto.subtle) equal([...m.sha256(b)], [...new Uint8Array(await crypto.subtle.digest("SHA-256", b))], `${n} bytes`);
    }
  },

  async "presence: first the present state, then changes, never an older one"(m, w) {
    const c = await w.up(m);
    const seen = [];
    const say = (client, online, epoch, more) => w.last.say({ type: "presence", client, online, ...(epoch && { epoch: String(epoch) }), ...(online && { node: "n2" }), ...more });
    const began = outcome(c.watch(["bob", "carol/phone", "bob"], (p) => void seen.push([p.client, p.online, p.node, p.epoch, p.since?.getTime() ?? null])));
    equal(w.last.take("watch"), { type: "watch", ids: ["bob", "carol/phone"], id: "1" });
    say("bob", true, 8, { since: "1700000000000" });
    say("carol/phone", false);
    await w.clock.settle();
    ok(!began.settled, "not before all was told");
    w.last.say({ type: "result", id: "1", code: m.codes.ok });
    await w.clock.settle();
    ok(typeof began.value === "function", "what ends it");
    equal(seen.splice(0), [["bob", true, "n2", "8", 1700000000000], ["carol/phone", false, "", "0", null]]);
    say("bob", true, 7); // of a node that is behind
    say("bob", true, 8, { since: "1700000000000" }); // known
    say("bob", false, 7);
    equal(seen.splice(0), []);
    say("bob", false, 8);
    say("bob", true, 8); // that session has ended
    say("bob", false, 8);
    say("bob", true, "18446744073709551615");
    say("bob", false); // of a session that the node does not know
    say("eve", true, 9);
    equal(seen.splice(0), [["bob", false, "", "8", null], ["bob", true, "n2", "18446744073709551615", null], ["bob", false, "", "18446744073709551615", null]]);
    // after a reconnect it is asked for again, and only news is told
    w.last.drop();
    await w.clock.advance(1);
    w.last.accept().welcome({ epoch: "8" });
    const again = w.last.take("watch");
    equal(again.ids, ["bob", "carol/phone"]);
    say("bob", false, "18446744073709551615");
    say("carol/phone", true, 3);
    w.last.say({ type: "result", id: again.id, code: m.codes.ok });
    equal(seen.splice(0), [["carol/phone", true, "n2", "3", null]]);
    // two watches of one id; each is told, and the node is told of the end of the last only
    const other = [];
    const stop = c.watch("bob", (p) => void other.push(p.online));
    const ask = w.last.take("watch");
    say("bob", false, "18446744073709551615");
    w.last.say({ type: "result", id: ask.id, code: m.codes.ok });
    equal([other, seen], [[false], []]);
    (await stop)();
    equal(w.last.take("unwatch"), undefined);
    c.unwatch(["bob"]);
    equal(w.last.take("unwatch").ids, ["bob"]);
    say("carol/phone", false, 3);
    say("bob", true, "18446744073709551615");
    equal([other.length, seen.splice(0).length], [1, 1]);
    began.value();
    equal(w.last.take("unwatch").ids, ["carol/phone"]);
    say("carol/phone", true, 4);
    equal(seen, []);
  },

  async "presence: many ids, friends, refusals"(m, w) {
    const c = await w.up(m);
    const ids = Array.from({ length: 1000 }, (_, i) => `user${i}`);
    const all = outcome(c.watch(ids, () => {}));
    const asked = [];
    equal(w.last.sent.filter((f) => f.type === "watch").length, 8, "a node takes only so many at a time");
    for (let f; (f = w.last.take("watch")); ) {
      asked.push(f);
      w.last.say({ type: "result", id: f.id, code: m.codes.ok });
      await w.clock.settle();
    }
    equal([asked.length, Math.max(...asked.map((f) => f.ids.length)), asked.flatMap((f) => f.ids).length, typeof all.value], [16, 64, 1000, "function"]);
    const long = outcome(c.watch(Array.from({ length: 30 }, (_, i) => `${"x".repeat(250)}${i}`), () => {}));
    const first = w.last.take("watch");
    ok(first.ids.length === 12, `${first.ids.length} long ids in a frame`);
    w.last.say({ type: "result", id: first.id, code: m.codes.refused, text: "too many" });
    await w.clock.settle();
    equal([long.error.reason, long.error.text], ["refused", "too many"]);
    for (const bad of [[], Array.from({ length: 1001 }, (_, i) => String(i)), ["a*"]]) {
      const o = outcome(c.watch(bad, () => {}));
      await w.clock.settle();
      equal(o.error?.reason, "bad_request");
    }
    c.unwatch(ids);
    w.last.sent = [];
    w.last.drop();
    await w.clock.advance(1);
    w.last.accept().welcome({ epoch: "8" });
    equal(w.last.take("watch"), undefined);
    const seen = [];
    const unwatched = [];
    c.on("unwatched", (u) => unwatched.push([u.ids, u.friends, u.error.reason]));
    const friends = outcome(c.watchFriends((p) => void seen.push(p.client)));
    const byName = outcome(c.watch(["dan"], (p) => void seen.push(`${p.client} by name`)));
    const f = w.last.take("watch");
    equal([f.to, f.ids], ["friends", undefined]);
    w.last.say({ type: "presence", client: "dan", online: true, node: "n1", epoch: "3", to: "friends" });
    w.last.say({ type: "presence", client: "flo", online: false });
    w.last.say({ type: "result", id: f.id, code: m.codes.ok }).say({ type: "result", id: w.last.take("watch").id, code: m.codes.ok });
    await w.clock.settle();
    equal(seen, ["dan", "dan by name"]);
    friends.value();
    equal(w.last.take("unwatch").to, "friends");
    equal(w.last.take("watch").ids, ["dan"], "he went with the list");
    ok(byName.value, "began");
    w.last.drop();
    await w.clock.advance(100);
    w.last.accept().welcome({ epoch: "9" });
    w.last.say({ type: "result", id: w.last.take("watch").id, code: m.codes.forbidden });
    equal(unwatched, [[["dan"], false, "forbidden"]]);
    const never = outcome(c.watch("zoe", () => {}));
    await Promise.all([c.close(), w.clock.advance(2_000)]);
    equal(never.error.reason, "bye");
  },

  async "a request to a client: only its own answer counts"(m, w) {
    const c = await w.up(m, {}, { instance: "55" });
    let answers = 100;
    const answer = (more) => w.last.say({ ...deliver(answers++), re: "1", re_instance: "55", ...more });
    const a = outcome(c.request("bob", "now?"));
    const sent = w.last.take("send");
    equal(sent, { type: "send", id: "1", to: "bob", ack: "owner", payload: "now?", timeout_ms: 4750 });
    w.last.say({ type: "result", id: "1", code: 1 });
    answer({ from: "eve", payload: "forged" });
    answer({ from: "bobby", payload: "forged" });
    answer({ from: "bob", re_instance: "56" });
    answer({ from: "bob", re: "2" });
    await w.clock.advance(10);
    ok(!a.settled, "nobody answered yet");
    answer({ from: "bob/phone", payload: "noon" });
    answer({ from: "bob/web", payload: "one" });
    await w.clock.settle();
    equal([a.value.from, a.value.text, a.value.id, a.value.rtt], ["bob/phone", "noon", "1", 10]);
    equal(c.got, [], "answers are no messages");
    // a device's answer is its own, and faults are errors
    const b = outcome(c.request("bob/web", new Uint8Array([1])));
    answer({ from: "bob", re: "2", payload: "forged" });
    answer({ from: "bob/web", re: "2", fault: 404, payload: "no such room" });
    await w.clock.settle();
    ok(b.error instanceof m.Fault && b.error.code === 404 && b.error.text === "no such room", String(b.error));
    // how it ends otherwise
    const off = outcome(c.request("bob", ""));
    w.last.say({ type: "result", id: "3", code: m.codes.offline });
    const late = outcome(c.request("bob", "", { timeout: 500 }));
    w.last.say({ type: "result", id: "4", code: 1 });
    const lost = outcome(c.request("bob", "", { timeout: 500 }));
    const abort = new AbortController();
    const gone = outcome(c.request("bob", "", { signal: abort.signal }));
    w.last.say({ type: "result", id: "6", code: 1 });
    await w.clock.settle();
    abort.abort(new Error("enough"));
    await w.clock.advance(501);
    equal([off, late, lost, gone].map((o) => o.error?.reason), ["offline", "timeout", "timeout", "timeout"]);
    ok(late.error.text.includes("handed over") && gone.error.cause.message === "enough", "they say which");
    answer({ from: "bob", re: "4" }); // nobody waits
    for (const [args, want] of [[["g", "", { kind: "group" }], "bad_request"], [["bob"], "TypeError"]]) {
      const o = outcome(c.request(...args));
      await w.clock.settle();
      equal(o.error.reason ?? o.error.name, want);
    }
    const unknown = outcome(c.request("bob", ""));
    const had = outcome(c.request("bob", ""));
    w.last.say({ type: "result", id: "8", code: 1 });
    await w.clock.settle();
    await Promise.all([c.close({ timeout: 10 }), w.clock.advance(2000)]);
    await w.clock.settle();
    equal([unknown.error.reason, had.error.reason, w.clock.timers.size], ["unknown", "unknown", 0]);
  },

  async "a request to a service: under a secret instance, and never twice"(m, w) {
    const c = await w.up(m, {}, { instance: "55" });
    const secret = w.last.take("login").instance;
    const instance = (of) => {
      const b = new Uint8Array(9 + 5);
      new DataView(b.buffer).setBigUint64(0, BigInt(of));
      b[8] = 6;
      b.set(new TextEncoder().encode("clock"), 9);
      return new DataView(m.sha256(b).buffer).getBigUint64(0).toString();
    };
    let answers = 100;
    const answer = (more) => w.last.say({ ...deliver(answers++), from: "clock/1", re_instance: instance(secret), ...more });
    const a = outcome(c.request("clock", "now?", { kind: "service", timeout: 3000 }));
    equal(w.last.take("send"), { type: "send", id: "1", to: "clock", kind: "service", ack: "owner", payload: "now?", timeout_ms: 2750 });
    answer({ re: "1", re_instance: instance("55"), payload: "forged by one who knows what everybody sees" });
    answer({ re: "1", re_instance: "55", payload: "forged" });
    await w.clock.settle();
    ok(!a.settled, "not yet");
    answer({ re: "1", payload_b64: "/wA=", epoch: "7" });
    w.last.say({ type: "result", id: "1", code: 1 });
    await w.clock.settle();
    equal([a.value.from, [...a.value.bytes]], ["clock/1", [255, 0]]);
    // one that was given to a session goes to no other
    const lost = outcome(c.request("clock", "", { kind: "service" }));
    w.last.drop();
    const waits = outcome(c.request("clock", "", { kind: "service" }));
    await w.clock.advance(1);
    equal([lost.error?.reason, waits.settled], ["unknown", false]);
    w.last.accept().welcome({ epoch: "8", instance: "55" });
    equal(w.last.sent.filter((f) => f.type === "send").map((f) => f.id), ["3"]);
    answer({ re: "3", epoch: "8", payload: "noon" });
    await w.clock.settle();
    equal([waits.value.text, c.pending], ["noon", 0], "who has the answer needs no result");
    // the session that has it still answers, should another one have taken over
    const old = w.last;
    const given = outcome(c.request("clock", "", { kind: "service" }));
    const moved = outcome(c.move("n3:3"));
    await w.clock.advance(0);
    w.last.accept().welcome({ epoch: "9", instance: "55" });
    old.say({ type: "result", id: "4", code: m.codes.overloaded });
    await w.clock.settle();
    equal([given.error?.reason, moved.settled, w.last.take("send")], ["overloaded", true, undefined]);
  },

  async "a client that is asked answers"(m, w) {
    const c = await w.up(m);
    c.on("message", (msg) => {
      if (msg.text === "m1") msg.reply("yes");
      else if (msg.text === "m2") msg.replyFault(7, "no");
      else if (msg.text === "m3") msg.reply("x".repeat(1001));
      else if (msg.text === "m5") msg.replyFault(8, "x".repeat(1001));
      else
        try {
          msg.reply();
        } catch (err) {
          c.got.push(err.name);
        }
    });
    w.last.say(deliver(1)).say(deliver(2)).say(deliver(3)).say(deliver(4));
    const sent = w.last.sent.filter((f) => f.type === "send").map(({ id, timeout_ms, ...f }) => f);
    equal(sent.slice(0, 2), [
      { type: "send", to: "bob", ack: "owner", re: "1", re_instance: "9", payload: "yes" },
      { type: "send", to: "bob", ack: "owner", re: "2", re_instance: "9", fault: 7, payload: "no" },
    ]);
    equal([sent.length, sent[2].re, sent[2].fault], [3, "3", m.faults.internal], "too large: the requester hears of it");
    equal(c.got.at(-1), "TypeError");
    w.last.sent = [];
    w.last.say(deliver(5));
    equal(w.last.take("send").fault, 8);
  },

  async "serving: requests have handlers of their own, and it is one again after a reconnect"(m, w) {
    const c = await w.up(m);
    const left = [];
    c.on("left", (l) => left.push([l.group, l.service, l.error.reason]));
    const open = [];
    const handler = (q) => {
      if (q.text === "fault") throw new m.Fault(9, "no");
      if (q.text === "fast") return `${q.service} for ${q.from}`;
      return new Promise((resolve, reject) => open.push({ q, resolve, reject }));
    };
    const began = outcome(c.serve("clock", handler, { capacity: 2 }));
    const join = w.last.take("join");
    equal(join, { type: "join", kind: "service", to: "clock", count: 2, id: "1" });
    w.last.say({ type: "result", id: "1", code: m.codes.joined });
    await w.clock.settle();
    const stop = began.value;
    ok(typeof stop === "function", "what ends it");
    const ask = (id, payload) => w.last.say({ ...deliver(id), from: "ann", instance: "77", kind: "service", to: "clock", timeout_ms: 4000, payload });
    const answers = async () => {
      await w.clock.settle();
      const out = [];
      for (let f; (f = w.last.take("send")); w.last.say({ type: "result", id: f.id, code: 1 })) out.push([f.to, f.re_instance, f.re, f.fault ?? 0, f.payload]);
      return out;
    };
    ask(1, "fast");
    ask(2, "fault");
    equal((await answers()).sort(), [["ann", "77", "1", 0, "clock for ann"], ["ann", "77", "2", 9, "no"]]);
    ask(3, "a");
    ask(4, "b");
    ask(5, "c");
    ask(4, "b"); // known
    equal(await answers(), [["ann", "77", "5", m.faults.busy, "this instance has as many requests as it takes"]]);
    equal(open.length, 2);
    open[1].resolve(undefined);
    equal(await answers(), [["ann", "77", "4", 0, ""]]);
    await w.clock.advance(4001);
    ok(open[0].q.signal.aborted, "the requester waits no longer");
    // it is one again, without having been asked
    w.last.drop();
    await w.clock.advance(1);
    w.last.accept().welcome({ epoch: "7" });
    const again = w.last.take("join");
    equal([again.kind, again.to, again.count], ["service", "clock", 2]);
    w.last.say({ type: "result", id: again.id, code: m.codes.joined });
    open[0].resolve(new Uint8Array([255]));
    await w.clock.settle();
    equal(w.last.take("send").payload_b64, "/w==", "an answer goes over the session that there is");
    const twice = outcome(c.serve("clock", handler));
    const silly = outcome(c.serve("other", handler, { capacity: 0 }));
    const no = outcome(c.serve("secret", handler));
    w.last.say({ type: "result", id: w.last.take("join").id, code: m.codes.forbidden });
    await w.clock.settle();
    equal([twice, silly, no].map((o) => o.error?.reason), ["refused", "bad_request", "forbidden"]);
    // the end: what is being handled is waited for
    ask(6, "slow");
    const ended = outcome(stop());
    const leave = w.last.take("leave");
    equal([leave.kind, leave.to], ["service", "clock"]);
    w.last.say({ type: "result", id: leave.id, code: m.codes.left });
    ask(7, "fast");
    equal(await answers(), [["ann", "77", "7", m.faults.gone, "this instance does not serve clock any more"]]);
    ok(!ended.settled, "one is open");
    open[2].resolve("done");
    equal(await answers(), [["ann", "77", "6", 0, "done"]]);
    ok(ended.settled, "ended");
    // the cluster ends it
    const b = outcome(c.serve("clock", handler));
    w.last.say({ type: "result", id: w.last.take("join").id, code: m.codes.joined });
    await w.clock.settle();
    w.last.say({ type: "leave", kind: "service", to: "clock", code: m.codes.forbidden });
    equal(left, [["", "clock", "forbidden"]]);
    ok(b.value, "served");
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
