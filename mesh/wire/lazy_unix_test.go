//go:build unix

package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

func TestLazyConn(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if NewLazyConn(tls.Client(in, &tls.Config{})) != nil {
		t.Error("TLS on a connection is none that the system could read")
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if NewLazyConn(a) != nil {
		t.Error("a pipe in memory is not the system's")
	}

	l := NewLazyConn(in)
	read := func() (string, error) {
		b, n, err := l.ReadLazily(4)
		if err != nil {
			if b != nil || n != 0 {
				t.Errorf("%v, and a buffer with %d bytes", err, n)
			}
			return "", err
		}
		defer b.Release()
		return string(b.B[:n]), nil
	}
	l.Wait(false)
	if _, err := read(); err != ErrNothing {
		t.Errorf("nothing there: %v", err)
	}
	fr := NewFrameReader(struct {
		io.Reader
		*LazyConn
	}{in, l}, 0)
	var f Frame
	if err := fr.Next(&f); err != ErrNothing {
		t.Errorf("no frame there: %v", err)
	}
	l.Wait(true)
	if _, err := out.Write(AppendFrame(nil, &Frame{Type: TypePing})); err != nil {
		t.Fatal(err)
	}
	if err := fr.Next(&f); err != nil || f.Type != TypePing { // it goes on
		t.Errorf("%+v %v", f, err)
	}
	fr.Close()
	if err := l.Control(func(fd uintptr) {
		if fd == 0 {
			t.Error("no descriptor")
		}
	}); err != nil {
		t.Error(err)
	}
	got, failed := make(chan string), make(chan error)
	go func() {
		for {
			s, err := read()
			if err != nil {
				failed <- err
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
				continue
			}
			got <- s
		}
	}()
	for _, s := range []string{"a", "bcd"} { // each waits first
		if _, err := io.WriteString(out, s); err != nil {
			t.Fatal(err)
		}
		if g := <-got; g != s {
			t.Errorf("got %q, want %q", g, s)
		}
	}
	if err := in.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past its deadline: %v", err)
	}
	if err := in.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(out, "longer"); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len("longer"); {
		select {
		case g := <-got:
			n += len(g)
		case <-failed:
		}
	}
	out.(*net.TCPConn).CloseWrite()
	for err = <-failed; errors.Is(err, os.ErrDeadlineExceeded); err = <-failed {
	}
	if err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	in.Close()
	if _, err := read(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
