package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"time"

	"imroute/node/admin"
)

// benchProfiler takes profiles of all nodes and of this process while a run measures.
type benchProfiler struct {
	dir   string
	nodes []admin.Node
	token string
	tls   bool // addresses without a scheme mean https
	http  *http.Client

	mu     sync.Mutex
	failed []error
}

// profiler is nil without --profile.
func (o *benchOptions) profiler(ctx context.Context, own *benchCluster) (*benchProfiler, error) {
	if o.profile == "" {
		return nil, nil
	}
	if err := os.MkdirAll(o.profile, 0o755); err != nil {
		return nil, fail("profile", "name another folder with --profile", "cannot make the folder for profiles: %w", err)
	}
	p := &benchProfiler{dir: o.profile, http: &http.Client{
		// A redirect would carry the token to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if own != nil {
		for _, n := range own.dev.cluster.Nodes {
			p.nodes = append(p.nodes, admin.Node{Name: n.Name, Addrs: n.Addrs})
		}
		return p, nil
	}
	t, err := o.adminTarget(false)
	if err != nil {
		return nil, fail("profile", "name an admin address with IMCTL_ADDR", "profiles come from the admin API: %w", err)
	}
	tc, err := tlsConfig(t.ca)
	if err != nil {
		return nil, err
	}
	p.token, p.tls = t.token, tc != nil
	p.http.Transport = &http.Transport{TLSClientConfig: tc}
	c, err := t.dial(o.app)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := o.bounded(ctx)
	defer cancel()
	if p.nodes, err = c.Nodes(ctx); err != nil {
		return nil, o.adminError(t, err)
	}
	return p, nil
}

// start takes profiles for d, in whole seconds and one at least. over waits for them.
func (p *benchProfiler) start(ctx context.Context, d time.Duration) (over func()) {
	seconds := max(int(d/time.Second), 1)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+20*time.Second)
	var wg sync.WaitGroup
	for _, n := range p.nodes {
		for _, kind := range []struct{ file, path string }{{"cpu", "profile"}, {"allocs", "allocs"}} {
			wg.Go(func() {
				url := fmt.Sprintf("%s/debug/pprof/%s?seconds=%d", p.base(n.Admin), kind.path, seconds)
				if err := p.fetch(ctx, url, p.file(n.Name, kind.file)); err != nil {
					p.fail(fmt.Errorf("%s of %s: %w", kind.file, n.Name, err))
				}
			})
		}
	}
	own := p.self()
	return func() {
		own()
		wg.Wait()
		cancel()
		p.http.CloseIdleConnections()
	}
}

func (p *benchProfiler) base(addr string) string {
	switch {
	case strings.Contains(addr, "://"):
		return strings.TrimSuffix(addr, "/")
	case p.tls:
		return "https://" + addr
	}
	return "http://" + addr
}

func (p *benchProfiler) file(who, kind string) string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == ':' || r < ' ' {
			return '_'
		}
		return r
	}, who)
	return filepath.Join(p.dir, name+"."+kind+".pprof")
}

func (p *benchProfiler) fetch(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	res, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, res.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}

// self profiles this process; its allocations are those since its start.
func (p *benchProfiler) self() (over func()) {
	f, err := os.Create(p.file("imctl-bench", "cpu"))
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		p.fail(fmt.Errorf("cpu of the generator: %w", err))
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			p.fail(fmt.Errorf("profile of the generator: %w", err))
		}
		p.allocations()
	}
}

// allocations writes those of this process since its start.
func (p *benchProfiler) allocations() {
	f, err := os.Create(p.file("imctl-bench", "allocs"))
	if err == nil {
		err = errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
	}
	if err != nil {
		p.fail(fmt.Errorf("profile of the generator: %w", err))
	}
}

func (p *benchProfiler) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = append(p.failed, err)
}

func (p *benchProfiler) failures() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}
