package raftfsm

import (
	"slices"
	"testing"
)

func checkListing(t *testing.T, table *Table, limitTotal int) {
	t.Helper()
	v := table.Grab(0)
	defer v.Close()
	want, _, err := v.Routes("", limitTotal+1, nil)
	if err != nil || len(want) != limitTotal {
		t.Fatalf("%d routes, want %d, %v", len(want), limitTotal, err)
	}
	for _, limit := range []int{1, 7, 100, limitTotal} {
		var got []Route
		cursor := ""
		for {
			list, next, err := v.Routes(cursor, limit, nil)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, list...)
			if next == "" {
				break
			}
			if len(list) != limit {
				t.Fatalf("a page of %d routes, limit %d", len(list), limit)
			}
			cursor = next
		}
		if !slices.Equal(got, want) {
			t.Fatalf("limit %d: %d routes, or another order", limit, len(got))
		}
		if limit == 1 && limitTotal > 1500 {
			continue
		}
	}
	for i := 1; i < len(want); i++ {
		if compareKeys(makeKey(want[i-1].Client), makeKey(want[i].Client)) >= 0 {
			t.Fatalf("routes %d and %d are out of order", i-1, i)
		}
	}
}

func TestListing(t *testing.T) {
	d := cluster(2)
	d.fill(1, 0, 1000, user)
	d.fill(2, 0, 500, device)
	checkListing(t, d.t, 1500)
	v := d.t.Grab(0)
	defer v.Close()
	list, next, err := v.Routes("", 1000, func(r Route) bool { return r.Node == 2 })
	if err != nil || next != "" || len(list) != 500 {
		t.Fatalf("%d routes of node 2, next %q, %v", len(list), next, err)
	}
	for _, bad := range []string{"?", "YQ", "AA"} {
		if _, _, err := v.Routes(bad, 1, nil); err == nil {
			t.Fatalf("cursor %q was accepted", bad)
		}
	}
}
