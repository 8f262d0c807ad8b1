package bench

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestMeshFigures: what links carried is of both ways and of the measured time; an election or a missing peer is told.
func TestMeshFigures(t *testing.T) {
	asked := 0
	read := func(_ context.Context, i int) (MeshCounters, error) {
		asked++
		c := MeshCounters{Term: 3, Peers: 2, Sent: map[string]float64{"n1": 1e9, "n2": 1e9, "n3": 1e9}}
		if asked > 3 {
			switch i {
			case 0:
				c.Sent["n2"] += 3e6
			case 1:
				c.Sent["n1"] += 1e6
			case 2:
				c.Term, c.Peers = 4, 1
			}
		}
		return c, nil
	}
	r, err := Mesh(t.Context(), Target{Addrs: make([]string, 3)}, MeshOptions{Duration: 10 * time.Millisecond, Read: read})
	if err != nil {
		t.Fatal(err)
	}
	m := r.Mesh
	if m.Links != 3 || m.LinkBytesLess != 0 || m.LinkBytesMax <= 0 || m.LinkBytesMax > 4e6/.01 || int(3*m.LinkBytes+.5) != int(m.LinkBytesMax+.5) {
		t.Errorf("%+v", m)
	}
	if all := strings.Join(r.Problems, "; "); r.Lost != 1 || !strings.Contains(all, "n3 went from 3 to 4") || !strings.Contains(all, "1 connection between two nodes is missing") {
		t.Errorf("%d lost, %s", r.Lost, all)
	}
	if _, err := Mesh(t.Context(), Target{Addrs: make([]string, 1)}, MeshOptions{Duration: 1}); err == nil {
		t.Error("one node has no mesh")
	}
}
