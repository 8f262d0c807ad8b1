package bench

import (
	"os"
	"testing"
	"time"
)

func TestStatCPU(t *testing.T) {
	stat := []byte("4711 (a) (b c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 100 5000 300\n")
	if got := statCPU(stat); got != 3*time.Second {
		t.Errorf("%v, want 3s", got)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1", "1 (x) S 1 2 3 4 5 6 7 8 9 10 a b c"} {
		if got := statCPU([]byte(bad)); got != 0 {
			t.Errorf("%q: %v", bad, got)
		}
	}
	if cpuOf([]int{0, -1}) != 0 || rssOf(-1) != 0 {
		t.Error("of nobody")
	}
	if rssOf(os.Getpid()) < 1<<20 {
		t.Errorf("our own memory is %d", rssOf(os.Getpid()))
	}
}
