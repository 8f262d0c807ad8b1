//go:build !linux

package gateway

import (
	"errors"

	"imroute/mesh/wire"
)

// bell is for systems on which sessions can doze.
type bell struct{}

func newBell() (*bell, error)                          { return nil, errors.ErrUnsupported }
func (*bell) watch(*wire.LazyConn, uint64, bool) error { return errors.ErrUnsupported }
func (*bell) wait() ([]uint64, error)                  { return nil, errors.ErrUnsupported }
func (*bell) close()                                   {}
