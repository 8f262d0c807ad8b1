package nodetest

import (
	"bytes"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// flipLog flips one bit of the last entry in a node's Raft log. It is found by its content, since most of the file is not in
// use at any time and a flip there would do no harm. Older copies of the page it is on may hold it as well and are spoilt with it.
func flipLog(t testing.TB, n *Node) {
	t.Helper()
	file := n.raftFile(t, "raft.db")
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var entry []byte
	err = db.View(func(tx *bbolt.Tx) error {
		_, v := tx.Bucket([]byte("logs")).Cursor().Last()
		entry = bytes.Clone(v)
		return nil
	})
	if err == nil {
		err = db.Close()
	}
	if err != nil || len(entry) == 0 {
		t.Fatalf("%s has no last entry: %v", file, err)
	}
	// The entry begins with the time of its appending, which decides nothing and is not covered by its checksum.
	const notJudged = 40
	bit := notJudged*8 + n.c.flip((len(entry)-notJudged)*8)
	places := 0
	spoil(t, file, func(b []byte) []byte {
		for from := 0; ; places++ {
			i := bytes.Index(b[from:], entry)
			if i < 0 {
				return b
			}
			b[from+i+bit/8] ^= 1 << (bit % 8)
			from += i + len(entry)
		}
	})
	if places == 0 {
		t.Fatal("the last entry was not found in the file")
	}
	t.Logf("bit %d of the last entry (%d bytes) is flipped", bit, len(entry))
}
