package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// clusterContext is what imctl remembers of a cluster so that commands need no flags.
type clusterContext struct {
	Name    string   `json:"name"`              // for people; the cluster's id if nobody named it
	Cluster string   `json:"cluster,omitempty"` // its id
	Admin   []string `json:"admin,omitempty"`   // admin addresses, the newest first
	Client  []string `json:"client,omitempty"`  // client addresses, the newest first
	Token   string   `json:"token,omitempty"`   // for the admin API
	CA      string   `json:"ca,omitempty"`      // file with the certificate that admin APIs are checked against
	Dev     bool     `json:"dev,omitempty"`     // development mode: no tokens needed
	Data    string   `json:"data,omitempty"`    // the folder of "imctl dev"
}

// contextFile is the file's content: the clusters known and which of them is meant when nobody says.
type contextFile struct {
	Version  int              `json:"version"`
	Current  string           `json:"current,omitempty"` // a Name
	Contexts []clusterContext `json:"contexts"`
}

// maxContextAddrs bounds what is remembered per cluster; addresses of long gone nodes fall off the end.
const maxContextAddrs = 16

// contextLockWait is how long a writer waits for another one.
const contextLockWait = 5 * time.Second

// contextPath is where the file is, "" if there is no place for it.
func (a *app) contextPath() string {
	if p := a.env("IMCTL_CONTEXT"); p != "" {
		return p
	}
	if a.io.UserConfigDir == "" {
		return ""
	}
	return filepath.Join(a.io.UserConfigDir, "imroute", "context.json")
}

// currentContext returns the current cluster; ok is false if nothing is remembered.
func (a *app) currentContext() (c clusterContext, ok bool, err error) {
	path := a.contextPath()
	if path == "" {
		return clusterContext{}, false, nil
	}
	f, err := readContextFile(path)
	if err != nil {
		return clusterContext{}, false, err
	}
	if i := f.find(f.Current); i >= 0 && f.Current != "" {
		return f.Contexts[i], true, nil
	}
	return clusterContext{}, false, nil
}

// readContextFile returns an empty one if there is none.
func readContextFile(path string) (contextFile, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return contextFile{Version: 1}, nil
	}
	if err != nil {
		return contextFile{}, fail("context", "name another file with IMCTL_CONTEXT, or use --addr", "cannot read the context file: %w", err)
	}
	f, err := parseContextFile(b)
	if err != nil {
		return contextFile{}, fail("context", "remove it, or name another one with IMCTL_CONTEXT", "the context file %s is damaged: %w", path, err)
	}
	return f, nil
}

func parseContextFile(b []byte) (contextFile, error) {
	var f contextFile
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&f); err != nil {
		return contextFile{}, err
	}
	if f.Version != 1 {
		return contextFile{}, fmt.Errorf("version %d is not understood here (1 is)", f.Version)
	}
	for _, c := range f.Contexts {
		if c.Name == "" {
			return contextFile{}, errors.New("an entry has no name")
		}
	}
	return f, nil
}

// find returns the index of the context with that name, or whose cluster id starts with it if that is only one; else -1.
func (f *contextFile) find(name string) int {
	byID := -1
	for i, c := range f.Contexts {
		if c.Name == name {
			return i
		}
		if name != "" && strings.HasPrefix(c.Cluster, name) {
			if byID >= 0 {
				return -1
			}
			byID = i
		}
	}
	return byID
}

// merge brings what is newly known of a cluster into the file and makes it the current one. Entries are the same cluster
// if their ids are.
func (f *contextFile) merge(c clusterContext) {
	i := slices.IndexFunc(f.Contexts, func(o clusterContext) bool {
		if c.Cluster != "" && o.Cluster != "" {
			return c.Cluster == o.Cluster
		}
		return c.Name != "" && c.Name == o.Name
	})
	if i < 0 {
		if c.Name == "" {
			c.Name = c.Cluster
		}
		if j := slices.IndexFunc(f.Contexts, func(o clusterContext) bool { return o.Name == c.Name }); j >= 0 {
			f.Contexts = slices.Delete(f.Contexts, j, j+1) // the same name for another cluster: the new one wins
		}
		c.Admin, c.Client = front(nil, c.Admin), front(nil, c.Client)
		f.Contexts = append(f.Contexts, c)
		f.Current = c.Name
		return
	}
	o := &f.Contexts[i]
	o.Admin, o.Client = front(o.Admin, c.Admin), front(o.Client, c.Client)
	o.Dev = c.Dev
	for _, p := range []struct{ to, from *string }{{&o.Cluster, &c.Cluster}, {&o.Token, &c.Token}, {&o.CA, &c.CA}, {&o.Data, &c.Data}} {
		if *p.from != "" {
			*p.to = *p.from
		}
	}
	f.Current = o.Name
}

// front puts new addresses before the old ones, each once, and keeps the newest.
func front(old, now []string) []string {
	out := slices.Clone(now)
	for _, o := range old {
		if !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out[:min(len(out), maxContextAddrs)]
}

// updateContext changes the file under its lock and replaces it whole.
func (a *app) updateContext(change func(*contextFile) error) error {
	path := a.contextPath()
	if path == "" {
		return fail("context", "name one with IMCTL_CONTEXT", "there is no place for a context file: no configuration folder is known")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail("context", "name another file with IMCTL_CONTEXT", "cannot make the folder of the context file: %w", err)
	}
	unlock, err := lockFile(path+".lock", contextLockWait)
	if errors.Is(err, errLocked) {
		return fail("context", "another imctl is writing it: try again", "cannot lock the context file: %w", err)
	}
	if err != nil {
		return fail("context", "name another file with IMCTL_CONTEXT", "cannot write beside the context file: %w", err)
	}
	defer unlock()
	f, err := readContextFile(path)
	if err != nil {
		return err
	}
	if err := change(&f); err != nil {
		return err
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fail("context", "", "cannot write the context file: %w", err)
	}
	if err := writeFileAtomic(path, append(b, '\n'), 0o600); err != nil {
		return fail("context", "name another file with IMCTL_CONTEXT", "cannot write the context file: %w", err)
	}
	return nil
}

// writeFileAtomic replaces path: readers see the old content or the new one, never a part.
func writeFileAtomic(path string, b []byte, mode fs.FileMode) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name()) // best effort: the first error is the one to tell
		}
	}()
	if _, err = tmp.Write(b); err == nil {
		if err = tmp.Chmod(mode); err == nil {
			err = tmp.Sync()
		}
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// forget removes the context of that name. If it was the current one there is none afterwards: to fall back to another
// cluster silently would be a surprise.
func (f *contextFile) forget(name string) {
	f.Contexts = slices.DeleteFunc(f.Contexts, func(c clusterContext) bool { return c.Name == name })
	if f.Current == name {
		f.Current = ""
	}
}
