package web_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"imroute/node/nodetest"
)

// TestBrowserAsks has clients of a real browser on the three nodes of a real cluster watch, ask, serve and forge; then the node
// under some of them is killed.
func TestBrowserAsks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster and a browser")
	}
	browser := startBrowser(t)
	c := nodetest.Start(t, nodetest.Options{})
	p := openTab(t, browser, "page", "http://"+c.Nodes[0].ClientWS+"/")
	p.eval(fmt.Sprintf(`(async () => {
		const m = await import("/v1/imroute.js");
		const nodes = [%q, %q, %q];
		const at = async (i, client) => { // at node i, with the others to go to
			const c = new m.Client({ client, addrs: [nodes[i], ...nodes.filter((_, k) => k !== i)] });
			await c.connect({ signal: AbortSignal.timeout(20000) });
			return c;
		};
		const outcome = (p) => p.then((v) => v?.text ?? v.reason, (err) => err.reason ?? err.name + " " + err.code + " " + err.text);
		const until = async (what, f) => {
			for (const end = Date.now() + 20000; ; await new Promise((r) => setTimeout(r, 20))) {
				const v = await f();
				if (v) return v;
				if (Date.now() > end) throw new Error("never: " + what);
			}
		};
		window.t = { m, at, outcome, until };
		return "";
	})()`, c.Nodes[0].ClientWS, c.Nodes[1].ClientWS, c.Nodes[2].ClientWS))

	steps := []struct{ name, js, want string }{
		{
			"watch over nodes", `
			t.ann = await t.at(0, "ann");
			t.seen = [];
			t.stop = await t.ann.watch(["bob", "bob/web", "carl"], (p) => void t.seen.push(p));
			const first = t.seen.map((p) => p.client + " " + p.online).sort().join(", ");
			t.bob = await t.at(1, "bob/web");
			t.last = (id) => t.seen.findLast((p) => p.client === id);
			await t.until("bob seen", () => t.last("bob").online && t.last("bob/web").online);
			const p = t.last("bob/web");
			return [first, p.node, p.epoch === t.bob.state.epoch, Math.abs(Date.now() - p.since) < 60000].join("|");`,
			"bob false, bob/web false, carl false|n2|true|true",
		},

		{
			"a thousand at once", `
			const stop = await t.ann.watch(Array.from({ length: 900 }, (_, i) => "user" + i), () => (t.told = (t.told ?? 0) + 1));
			stop();
			return String(t.told);`,
			"900",
		},

		{"refused", `return t.outcome(t.ann.watchFriends(() => {}));`, "refused"},

		{
			"a request to a client", `
			t.bob.on("message", (msg) => {
				if (msg.text === "how?") msg.reply("fine, " + msg.from);
				else if (msg.text === "fault") msg.replyFault(404, "no such room");
				else if (msg.text === "later") t.later = msg;
			});
			return [await t.outcome(t.ann.request("bob", "how?")), await t.outcome(t.ann.request("bob/web", "fault")),
				await t.outcome(t.ann.request("bob", "silence", { timeout: 300 })), await t.outcome(t.ann.request("nobody", ""))].join("|");`,
			"fine, ann|Fault 404 no such room|timeout|offline",
		},

		{
			"a request to a service on another node", `
			t.dan = await t.at(1, "dan");
			t.stopClock = await t.dan.serve("clock", async (q) => {
				if (q.text === "slow") await new Promise((r) => (t.finish = r));
				if (q.text === "fault") throw new t.m.Fault(5, "stopped");
				return q.service + " for " + q.from + ": " + q.text;
			}, { capacity: 1 });
			const out = [await t.outcome(t.ann.request("clock", "now?", { kind: "service" })), await t.outcome(t.ann.request("clock", "fault", { kind: "service" }))];
			const slow = t.outcome(t.ann.request("clock", "slow", { kind: "service" }));
			await t.until("it is busy", () => t.finish);
			out.push(await t.outcome(t.ann.request("clock", "busy", { kind: "service", timeout: 400 })));
			t.finish();
			out.push(await slow, await t.outcome(t.ann.request("none", "", { kind: "service" })));
			return out.join("|");`,
			"clock for ann: now?|Fault 5 stopped|overloaded|clock for ann: slow|offline",
		},

		{
			"forged answers settle nothing", `
			t.eve = await t.at(2, "eve");
			const known = new Promise((r) => t.eve.on("message", (msg) => r(msg.instance)));
			await t.ann.send("eve", "hello", { ack: "client" });
			const instance = await known; // that much anybody knows whom she ever wrote to
			const b = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 6, ...new TextEncoder().encode("clock")]);
			new DataView(b.buffer).setBigUint64(0, BigInt(instance));
			const made = new DataView(t.m.sha256(b).buffer).getBigUint64(0).toString();
			const person = t.outcome(t.ann.request("bob/web", "later", { timeout: 20000 }));
			t.finish = null;
			const service = t.outcome(t.ann.request("clock", "slow", { kind: "service", timeout: 20000 }));
			await t.until("both asked", () => t.later && t.finish);
			const id = BigInt(t.later.id);
			const ids = [id - 1n, id, id + 1n, id + 2n].map(String);
			const forged = await Promise.all(ids.flatMap((re) => [instance, made].map((re_instance) =>
				t.eve.exchange({ type: "send", to: "ann", ack: "owner", re, re_instance, payload: "forged" }))));
			t.later.reply("really bob");
			t.finish();
			return [forged.map((f) => f.reason).join(" "), await person, await service].join("|");`,
			strings.TrimSpace(strings.Repeat("delivered ", 8)) + "|really bob|clock for ann: slow",
		},

		{
			"payloads that JSON blows up", `
			const bobGot = new Promise((r) => t.bob.on("message", (msg) => msg.text.length > 1000 && r(msg.text)));
			const text = "\u0001".repeat(400000);
			const sent = await t.outcome(t.ann.send("bob/web", text, { ack: "client", timeout: 20000 }));
			const large = await t.outcome(t.ann.send("bob/web", "x".repeat(1 << 21)));
			const empty = new Promise((r) => t.eve.on("message", (msg) => r(JSON.stringify(msg.text))));
			await t.ann.send("eve", "");
			return [sent, (await bobGot) === text, large, await empty, t.ann.state.kind].join("|");`,
			`|true|too_large|""|connected`,
		},
	}
	for _, s := range steps {
		began := time.Now()
		got := p.eval("(async () => {" + s.js + "})()")
		t.Logf("%s: %v", s.name, time.Since(began).Round(time.Millisecond))
		if s.name == "payloads that JSON blows up" {
			got = strings.TrimPrefix(got, "delivered")
		}
		if got != s.want {
			t.Fatalf("%s: got %q, want %q", s.name, got, s.want)
		}
	}

	// bob, dan's service and flo's watch were at n2. All go on elsewhere, without having been told to.
	p.eval(`(async () => {
		t.flo = await t.at(1, "flo");
		t.floSaw = [];
		await t.flo.watch("carl", (p) => void t.floSaw.push(p.online));
		t.seen.length = 0;
		return "";
	})()`)
	c.Nodes[1].Kill(t)
	got := p.eval(`(async () => {
		const before = t.bob.state.kind === "connected" ? t.bob.state.epoch : "0";
		await t.until("bob is elsewhere", () => t.bob.state.kind === "connected" && t.bob.state.node !== "n2" && t.last("bob/web")?.online && t.last("bob/web").epoch === t.bob.state.epoch);
		await t.until("the clock is served again", async () => (await t.outcome(t.ann.request("clock", "still?", { kind: "service", timeout: 1000 }))) === "clock for ann: still?");
		await t.until("flo is elsewhere", () => t.flo.state.kind === "connected" && t.flo.state.node !== "n2");
		t.carl = await t.at(0, "carl");
		await t.until("flo sees carl come", () => t.floSaw.at(-1) === true);
		const falls = ["bob", "bob/web", "carl"].some((id) => t.seen.filter((p) => p.client === id).some((p, i, all) => i > 0 && BigInt(p.epoch) < BigInt(all[i - 1].epoch)));
		await t.until("ann sees carl", () => t.last("carl")?.online);
		t.ann.unwatch(["carl"]);
		const n = t.seen.length;
		await t.carl.close();
		await t.until("flo sees carl go", () => t.floSaw.at(-1) === false);
		await t.stopClock();
		const none = await t.outcome(t.ann.request("clock", "", { kind: "service" }));
		await Promise.all([t.ann, t.bob, t.dan, t.eve, t.flo].map((c) => c.close()));
		return [falls, t.seen.length === n, none].join("|");
	})()`)
	if want := "false|true|offline"; got != want {
		t.Errorf("after the kill: got %q, want %q", got, want)
	}
}
