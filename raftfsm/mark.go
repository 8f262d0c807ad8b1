package raftfsm

// A marked entry lets all members compare their tables at one index: each keeps itself as it was there. Only the last one
// is kept; what nobody takes costs copies of the pages that change, until the next.

func (f *FSM) keepMark(v *View) {
	if old := f.mark.Swap(v); old != nil {
		old.Close()
	}
}

// TakeMark returns the table as it was at the marked entry index, once; nil if it was not kept. The caller closes it.
func (f *FSM) TakeMark(index uint64) *View {
	v := f.mark.Load()
	if v == nil || v.Index != index || !f.mark.CompareAndSwap(v, nil) {
		return nil
	}
	return v
}
