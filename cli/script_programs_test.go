package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"imroute/mesh/wire"
	"imroute/node/client"
)

// Programs that stories run beside imctl: what users of a cluster would write themselves.

// pageMain is what a web page does without any client library: page URL FILE speaks JSON over a WebSocket as FILE says, line by line.
//
//	→ FRAME   sends it
//	← RE      waits for a frame that matches; (?P<name>…) is put into later lines for $name
//	end       waits for the end of the connection
//
// It prints every frame, and exits with 1 when something does not come within ten seconds.
func pageMain() {
	if err := page(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "page:", err)
		os.Exit(1)
	}
}

func page(url, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), scriptWait)
	defer cancel()
	opts := &websocket.DialOptions{Subprotocols: []string{"imroute.v1.json"}}
	if pem, err := os.ReadFile("trusted.pem"); err == nil { // of the story: for wss
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return errors.New("trusted.pem has no certificate")
		}
		opts.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	}
	conn, _, err := websocket.Dial(ctx, url, opts)
	if err != nil {
		return err
	}
	defer conn.CloseNow() //nolint:errcheck // it is over
	read := func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, frame, err := conn.Read(ctx)
		if err == nil {
			fmt.Printf("← %s\n", frame)
		}
		return string(frame), err
	}
	var said []string // frames that no line has waited for yet
	known := map[string]string{}
	for n, line := range strings.Split(string(b), "\n") {
		what, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		text = os.Expand(text, func(name string) string { return known[name] })
		switch what {
		case "", "#":
		case "→":
			fmt.Println("→", text)
			if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
				return fmt.Errorf("line %d: %w", n+1, err)
			}
		case "end":
			for err = nil; err == nil; {
				_, err = read()
			}
			if ctx.Err() != nil || websocket.CloseStatus(err) == -1 && strings.Contains(err.Error(), "deadline") {
				return fmt.Errorf("line %d: the connection does not end", n+1)
			}
		case "←":
			re, err := regexp.Compile(text)
			if err != nil {
				return fmt.Errorf("line %d: %w", n+1, err)
			}
			for i := 0; ; i++ {
				if i == len(said) {
					frame, err := read()
					if err != nil {
						return fmt.Errorf("line %d, waiting for %s: %w", n+1, text, err)
					}
					said = append(said, frame)
				}
				if m := re.FindStringSubmatch(said[i]); m != nil {
					for j, name := range re.SubexpNames() {
						known[name] = m[j]
					}
					said = append(said[:i], said[i+1:]...)
					break
				}
			}
		default:
			return fmt.Errorf("line %d: what is %q?", n+1, what)
		}
	}
	return nil
}

// certMain makes a certificate for 127.0.0.1 that signs itself: cert CERT KEY.
func certMain() {
	if err := makeCert(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "cert:", err)
		os.Exit(1)
	}
}

func makeCert(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	priv, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: priv}), 0o600)
}

// deviceMain is the program of a device: device ADDR ID connects over TCP, does what it is told (on, off), reports each change to who
// told it and wants to know that the report arrived, and answers "typing" with the same, of which it wants to know nothing.
func deviceMain() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := device(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "device:", err)
		os.Exit(1)
	}
}

func device(ctx context.Context, addr, id string) error {
	c, err := client.Dial(ctx, client.Config{Addrs: []string{addr}, Client: id})
	if err != nil {
		return err
	}
	defer c.Close(context.Background()) //nolint:errcheck // it is over
	fmt.Println("connected")
	for {
		m, err := c.Receive(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", m.From, m.Payload)
		switch text := string(m.Payload); text {
		case "on", "off":
			r, err := c.Send(ctx, m.From, []byte(id+" is "+text), client.WithAck(wire.AckClient))
			fmt.Printf("reported %s: %s at %s (%v)\n", text, r.Code, r.Owner, err)
		case "typing":
			if _, err := c.Send(ctx, m.From, []byte("typing")); err != nil {
				return err
			}
		}
	}
}
