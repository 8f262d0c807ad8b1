package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"imroute/node/nodetest"
	"imroute/node/web"
)

// The tests of this file drive a real browser: IMROUTE_BROWSER, or the first of these in the PATH.
var browsers = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell"}

// patience bounds every wait.
const patience = 30 * time.Second

func TestMain(m *testing.M) { os.Exit(nodetest.Main(m)) }

// startBrowser starts one that ends with the test, or skips it. Tabs are opened in the context it returns.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	path := os.Getenv("IMROUTE_BROWSER")
	for _, name := range browsers {
		if path == "" {
			path, _ = exec.LookPath(name)
		}
	}
	if path == "" {
		t.Skip("no browser here: `make tools` installs chromium, or name one with IMROUTE_BROWSER")
	}
	dir, err := os.MkdirTemp("", "imroute-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the browser's children may still write for a moment
		eventually(func() bool { return os.RemoveAll(dir) == nil })
	})
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU, chromedp.UserDataDir(dir), chromedp.WindowSize(1200, 780))
	if os.Getuid() == 0 { // the sandbox does not run as root
		opts = append(opts, chromedp.NoSandbox)
	}
	alloc, cancelAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancelAlloc)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("the browser does not start: %v", err)
	}
	return ctx
}

// tab is one page. It fails the test when the page throws an exception or breaks its policy.
type tab struct {
	t    *testing.T
	ctx  context.Context
	name string

	mu       sync.Mutex
	problems []string
}

func openTab(t *testing.T, browser context.Context, name, url string) *tab {
	t.Helper()
	p := &tab{t: t, name: name}
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithListener(p.hear))
	t.Cleanup(cancel)
	p.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // whatever comes first lives as long as its context
		t.Fatalf("%s: %v", name, err)
	}
	// Only one tab of a window is in front; each of ours behaves as if it were.
	focus := chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
		return err
	})
	p.do(focus, chromedp.Navigate(url))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s sees: %s", name, p.text("body"))
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range p.problems {
			t.Errorf("%s: %s", name, s)
		}
	})
	return p
}

func (p *tab) hear(ev any) {
	problem := ""
	switch ev := ev.(type) {
	case *cdpruntime.EventExceptionThrown:
		problem = fmt.Sprintf("exception: %+v", ev.ExceptionDetails)
	case *cdplog.EventEntryAdded:
		if ev.Entry.Source == "security" || strings.Contains(ev.Entry.Text, "Content Security Policy") {
			problem = ev.Entry.Text
		}
	}
	if problem != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problems = append(p.problems, problem)
	}
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// eval evaluates an expression that gives a string, or a promise of one.
func (p *tab) eval(js string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string](js, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %s: %v", p.name, js, err)
	}
	return s
}

// text is what an element shows.
func (p *tab) text(selector string) string {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
	if err != nil {
		return err.Error()
	}
	return s
}

// sees waits until an element shows want, or shows nothing if want is empty.
func (p *tab) sees(selector, want string) {
	p.t.Helper()
	got := ""
	shown := eventually(func() bool {
		got = p.text(selector)
		return want == "" && strings.TrimSpace(got) == "" || want != "" && strings.Contains(got, want)
	})
	if !shown {
		p.t.Fatalf("%s: %s shows %q, want %q", p.name, selector, got, want)
	}
}

// eventually asks again and again until cond holds, for patience at most.
func eventually(cond func() bool) bool {
	tick, late := time.NewTicker(20*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-late:
			return false
		}
	}
	return true
}

func (p *tab) say(text string) {
	p.t.Helper()
	p.eval(`document.querySelector("#text").value = ""`)
	p.do(chromedp.SendKeys(chromedp.CSS("#text"), text+"\r"))
}

// enter comes in through the page's form.
func (p *tab) enter() {
	p.t.Helper()
	p.sees("#first-node", "n1")
	p.do(chromedp.Click(chromedp.CSS("#enter button")))
	p.sees("#status", "connected to ")
}

// screenshot writes what the tab shows to the file that IMROUTE_SCREENSHOT names, before its ending .png with suffix.
func (p *tab) screenshot(suffix string) {
	p.t.Helper()
	file := os.Getenv("IMROUTE_SCREENSHOT")
	if file == "" {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatalf("%s: screenshot: %v", p.name, err)
	}
	file = strings.TrimSuffix(file, ".png") + suffix + ".png"
	if err := os.WriteFile(file, png, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("screenshot: %s", file)
}

// TestBrowserModule runs the client's tests in a browser.
func TestBrowserModule(t *testing.T) {
	browser := startBrowser(t)
	mux := http.NewServeMux()
	mux.Handle("GET /v1/", web.Handler(web.Config{}))
	mux.HandleFunc("GET /client_test.mjs", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile("testdata/client_test.mjs")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write(b)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Type", "text/html") })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	p := openTab(t, browser, "tests", srv.URL+"/")
	out := p.eval(`import("/client_test.mjs").then(async (t) => JSON.stringify(await t.run(await import("/v1/imroute.js"))))`)
	var results []struct{ Name, Error string }
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		t.Fatal(err)
	}
	if len(results) < 20 {
		t.Fatalf("only %d tests ran", len(results))
	}
	for _, r := range results {
		if r.Error != "" {
			t.Errorf("%s: %s", r.Name, r.Error)
		}
	}
}

// TestBrowserChat is the chat page on a cluster: two tabs on two nodes meet in a room, talk, see each other type and move;
// a node is killed and its tab goes on at another one.
func TestBrowserChat(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster and a browser")
	}
	browser := startBrowser(t)
	c := nodetest.Start(t, nodetest.Options{})
	at := func(i int, name string) string {
		return fmt.Sprintf("http://%s/#name=%s&room=lobby&node=n%d", c.Nodes[i].ClientWS, name, i+1)
	}

	ann := openTab(t, browser, "ann", at(0, "ann"))
	ann.screenshot("-door")
	ann.enter()
	ann.sees("#status", "connected to n1")
	bob := openTab(t, browser, "bob", at(2, "bob"))
	bob.enter()
	bob.sees("#status", "connected to n3")

	// They see each other come.
	ann.sees("#log", "bob came in (n3, "+c.Nodes[2].ClientWS+")")
	ann.sees("#people", "bob")
	bob.sees("#people", "ann")

	// Typing is seen, and then the words.
	ann.do(chromedp.SendKeys(chromedp.CSS("#text"), "hel"))
	bob.sees("#typing", "ann is typing…")
	ann.say("hello bob, can you hear me on n3?")
	bob.sees("#log", "hello bob, can you hear me on n3?")
	ann.sees("#log", "✓ reached 1")
	bob.sees("#typing", "")
	bob.say(`loud and clear <img src=x onerror="document.title='broken in'"><b>!</b>`)
	ann.sees("#log", `loud and clear <img src=x onerror="document.title='broken in'"><b>!</b>`)
	if s := ann.eval(`String(document.querySelectorAll("#log img, #log b b").length) + document.title`); !strings.HasPrefix(s, "0ann in lobby") {
		t.Errorf("markup came through: %s", s)
	}

	// A tab that chooses another node moves without a gap.
	ann.eval(fmt.Sprintf(`(() => {
		const select = document.querySelector("#node");
		select.value = %q;
		select.dispatchEvent(new Event("change"));
		return "";
	})()`, c.Nodes[1].ClientWS))
	ann.sees("#status", "connected to n2")
	bob.sees("#log", "ann moved from n1 to n2")

	// Her node is killed: she goes on elsewhere, and both go on talking.
	c.Nodes[1].Kill(t)
	ann.sees("#log", "The connection to n2 was lost")
	ann.sees("#log", "You moved from n2 to ")
	ann.sees("#status", "connected to ")
	bob.sees("#log", "ann moved from n2 to ")
	ann.say("n2 died under me, I am still here")
	bob.sees("#log", "n2 died under me, I am still here")
	bob.say("did not notice a thing")
	ann.sees("#log", "did not notice a thing")
	ann.screenshot("")
	bob.do(chromedp.EmulateViewport(390, 780, chromedp.EmulateScale(2), chromedp.EmulateMobile))
	bob.screenshot("-phone")

	// Who is online has a dot, over nodes and moves; who goes without a word has a grey one.
	dot := func(who, want string) {
		t.Helper()
		js := fmt.Sprintf(`[...document.querySelectorAll("#people li")].find((li) => li.title.startsWith(%q))?.dataset.online ?? "nobody"`, who+" ")
		got := ""
		if !eventually(func() bool { got = bob.eval(js); return got == want }) {
			t.Fatalf("%s's dot is %s, want %s", who, got, want)
		}
	}
	dot("ann", "true")
	ann.eval(fmt.Sprintf(`import("/v1/imroute.js").then(async (m) => {
		window.ghost = new m.Client({ client: "ghost", addrs: [%q], groups: ["room:lobby"] });
		await ghost.connect();
		await ghost.send("room:lobby", JSON.stringify({ room: "lobby", type: "join", node: "n1", addr: "x" }), { kind: "group" });
		return "";
	})`, c.Nodes[0].ClientWS))
	dot("ghost", "true")
	ann.eval(`ghost.close().then(() => "")`)
	dot("ghost", "false")
	bob.screenshot("-dots")

	// Others are seen to go, whether they leave or close the tab.
	cat := openTab(t, browser, "cat", at(0, "cat"))
	cat.enter()
	bob.sees("#log", "cat came in (n1, ")
	cat.do(chromedp.Navigate("about:blank"))
	bob.sees("#log", "cat left")
	ann.do(chromedp.Click(chromedp.CSS("#leave")))
	bob.sees("#log", "ann left")
	ann.sees("#enter", "Come in")

	t.Run("client", func(t *testing.T) { clientInBrowser(t, bob, c) })
}

// clientInBrowser uses the module itself against the cluster, whose second node is down: what the chat does not.
func clientInBrowser(t *testing.T, p *tab, c *nodetest.Cluster) {
	program := fmt.Sprintf(`(async () => {
		const { Client, codes } = await import("/v1/imroute.js");
		const eve = new Client({ client: "eve/web", addrs: [%q], groups: ["news"] });
		const fred = new Client({ client: "fred", addrs: [%q] });
		const got = [];
		eve.on("message", (m) => got.push([m.from, m.kind, m.to, [...m.bytes].join(" ")].join("|")));
		const left = new Promise((resolve) => eve.on("left", (l) => resolve(l.group + " " + l.error.reason)));
		await Promise.all([eve.connect({ signal: AbortSignal.timeout(20000) }), fred.connect({ signal: AbortSignal.timeout(20000) })]);
		await fred.join("news");
		const out = [];
		const send = async (...args) => {
			try {
				const r = await fred.send(...args);
				out.push([r.reason, r.count].join(" "));
			} catch (err) {
				out.push([err.reason, err.class].join(" "));
			}
		};
		await send("eve/web", new Uint8Array([0, 255, 128]), { ack: "client" });
		await send("eve", "to all devices", { ack: "client" });
		await send("news", "group", { kind: "group", ack: "client" });
		await send("ev", "prefix", { kind: "prefix" });
		await send("nobody", "x");
		await fred.leave("news");
		await send("news", "again", { kind: "group" });
		out.push(got.join(", "));
		await fetch("/demo/nodes.json").then((r) => out.push(r.status));
		out.push(await new Promise((resolve, reject) => { // the clock that hidden pages go by
			const w = new Worker("/v1/imroute.js", { type: "module", name: "imroute-ticker" });
			w.onmessage = () => (w.terminate(), resolve("ticks"));
			w.onerror = reject;
		}));
		window.parted = left.then(async (l) => {
			await Promise.all([eve.close(), fred.close()]);
			return l + ", " + eve.error.reason + " " + eve.state.kind;
		});
		return out.join("\n");
	})()`, c.Nodes[0].ClientWS, c.Nodes[2].ClientWS)
	want := strings.Join([]string{
		"delivered 0", "delivered 1", "delivered 1", "delivered 1", "offline final", "delivered 1", // fred listens to nothing: he acknowledges nothing
		"fred|client||0 255 128, fred|client||" + codes("to all devices") + ", fred|group|news|" + codes("group") + ", fred|prefix|ev|" + codes("prefix") + ", fred|group|news|" + codes("again"),
		"200", "ticks",
	}, "\n")
	if got := p.eval(program); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if out, err := http.Post("http://"+c.Nodes[0].AdminAddr+"/v1/groups/news/close", "application/json", strings.NewReader("{}")); err != nil || out.StatusCode != http.StatusOK {
		t.Fatalf("closing the group: %v, %v", out, err)
	}
	if got, want := p.eval("window.parted"), "news group_closed, bye closed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// codes are a text's bytes, as numbers.
func codes(s string) string { return strings.Trim(fmt.Sprint([]byte(s)), "[]") }
