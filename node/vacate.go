package node

import (
	"sync"
	"time"

	"imroute/mesh/wire"
)

// vacated are the client ids that were given up to a login elsewhere. Their rows stay until that login's registration
// replaces them, so that a client who moves is never without a route: a message that finds the old row is refused here and
// waits for the new one. A row that nobody replaced goes once its time is over. Guarded by mu; the zero value is empty.
type vacated struct {
	mu   sync.Mutex
	ids  map[wire.ClientID]vacancy
	wake chan struct{} // made with the life, capacity 1
}

type vacancy struct {
	epoch wire.Epoch // the highest that was given up
	due   time.Duration
}

// vacateTick is how often rows are looked for whose time is over.
const vacateTick = 250 * time.Millisecond

// add notes that every epoch of the client up to epoch is given up to somebody who is about to register.
func (v *vacated) add(client wire.ClientID, epoch wire.Epoch, due time.Duration) {
	v.mu.Lock()
	if v.ids == nil {
		v.ids = map[wire.ClientID]vacancy{}
	}
	v.ids[client] = vacancy{max(epoch, v.ids[client].epoch), due}
	v.mu.Unlock()
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// covers tells whether that epoch's row is left to whoever takes over.
func (v *vacated) covers(client wire.ClientID, epoch wire.Epoch) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	at, ok := v.ids[client]
	return ok && epoch <= at.epoch
}

// over lists what is due at the moment at, and how many there are altogether.
func (v *vacated) over(at time.Duration) (due map[wire.ClientID]wire.Epoch, all int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	due = map[wire.ClientID]wire.Epoch{}
	for client, x := range v.ids {
		if at >= x.due {
			due[client] = x.epoch
		}
	}
	return due, len(v.ids)
}

// forget ends a vacancy, unless a higher epoch was given up meanwhile.
func (v *vacated) forget(client wire.ClientID, epoch wire.Epoch) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ids[client].epoch <= epoch {
		delete(v.ids, client)
	}
}

// isOver judges a vacancy whose time is over, by the client's row in the table here.
func isOver(epoch wire.Epoch, closing bool, row wire.Epoch, found bool) (forget, unregister bool) {
	if closing {
		return false, false // not fenced yet: next time
	}
	return true, !found || row <= epoch // a table that is behind may not have the row yet; a higher one replaced it
}

// vacate removes the rows that were left to somebody who never came, until the incarnation ends.
func (l *life) vacate() {
	for {
		select {
		case <-l.vacated.wake:
		case <-l.ctx.Done():
			return
		}
		for all := 1; all > 0; {
			if !sleep(l.ctx, vacateTick) {
				return
			}
			var due map[wire.ClientID]wire.Epoch
			due, all = l.vacated.over(now())
			for client, epoch := range due {
				l.proposer.together(func() *operation {
					row, ok := l.n.fsm.Lookup(client)
					forget, unregister := isOver(epoch, len(l.claims.closing(client)) > 0, row.Epoch, ok)
					if forget {
						l.vacated.forget(client, epoch)
					}
					if !unregister {
						return nil
					}
					return l.unregistration(client, epoch)
				})
			}
		}
	}
}
