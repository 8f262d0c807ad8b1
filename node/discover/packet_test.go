package discover

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"imroute/mesh/wire"
)

func contains(s, sub string) bool { return strings.Contains(s, sub) }

// testKey derives no key slowly.
func testKey(t testing.TB, cluster string, secret byte) *Key {
	t.Helper()
	k, err := makeKey(cluster, [32]byte{secret})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func fullAnnouncement() *Announcement {
	a := &Announcement{
		State: Member, Node: ^wire.NodeID(0), Instance: ^uint64(0), Seq: ^uint64(0), Name: strings.Repeat("n", 64), Dev: true, Expect: 1000,
		Mesh: strings.Repeat("m", maxAddr), Cluster: ^uint64(0), CAHash: [32]byte{1, 2, 3},
	}
	for i := range maxView {
		a.View = append(a.View, Seen{Node: ^wire.NodeID(i), Instance: ^uint64(i)})
	}
	return a
}

func TestPacket(t *testing.T) {
	k := testKey(t, "office", 1)
	a := fullAnnouncement()
	b, err := k.seal(a)
	if err != nil {
		t.Fatal(err) // the largest one fits into a packet
	}
	got, err := k.open(b)
	if err != nil || !reflect.DeepEqual(got, a) {
		t.Fatalf("%v\n%+v\n%+v", err, got, a)
	}
	for i := range b { // every bit counts
		c := slices.Clone(b)
		c[i] ^= 0x10
		if _, err := k.open(c); err == nil {
			t.Fatalf("byte %d was changed and nobody noticed", i)
		}
	}
	for i := range b {
		if _, err := k.open(b[:i]); err == nil {
			t.Fatalf("cut off at %d and nobody noticed", i)
		}
	}
	old := slices.Clone(b)
	old[4] = 9
	for _, c := range []struct {
		name string
		key  *Key
		b    []byte
		want error
	}{
		{"other secret", testKey(t, "office", 2), b, errSecret},
		{"other cluster", testKey(t, "home", 1), b, errName},
		{"other version", k, old, errVersion},
		{"not ours", k, []byte("\x00\x00\x84\x00 mdns or so"), errForeign},
		{"too long", k, make([]byte, MaxPacket+1), errForeign},
	} {
		if _, err := c.key.open(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, bad := range []*Announcement{
		{State: Seeking, Seq: 1},
		{State: Seeking, Node: 1},
		{State: 4, Node: 1, Seq: 1},
		{State: Member, Node: 1, Seq: 1, Mesh: "h:1", Cluster: 1},
	} {
		b, err := k.seal(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.open(b); !errors.Is(err, errBody) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := testKey(f, "office", 1)
	for _, a := range []*Announcement{fullAnnouncement(), {State: Seeking, Node: 1, Seq: 1}} {
		b, err := k.seal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
		f.Add(b[headBytes+6:len(b)-macBytes], false)
	}
	f.Add([]byte("IMRD\x01\x01\x06office"), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, whole bool) {
		if !whole { // as if somebody with the secret had made it: the parser behind the mac must hold as well
			p := append([]byte(magic+"\x01\x03\x06office"), b...)
			b = k.mac(p).Sum(p)
		}
		a, err := k.open(b)
		if err != nil {
			return
		}
		again, err := k.seal(a)
		if err != nil {
			return // a longer way to say it than ours may not fit
		}
		if same, err := k.open(again); err != nil || !reflect.DeepEqual(a, same) {
			t.Fatalf("%v: %+v, %+v", err, a, same)
		}
	})
}

func TestKey(t *testing.T) {
	const secret = "correct horse battery"
	k, err := NewKey("office", secret)
	if err != nil {
		t.Fatal(err)
	}
	same, err := ParseKey(k.Marshal())
	if err != nil || !same.Equal(k) {
		t.Fatalf("%v", err)
	}
	id, token := same.Token()
	if len(id) != 12 || len(token) != 20 || !k.Admits(id, token) {
		t.Fatalf("token %s %x", id, token)
	}
	other, err := NewKey("office2", secret)
	if err != nil || other.Equal(k) || other.Admits(id, token) || (*Key)(nil).Admits(id, token) || k.Admits(id, nil) {
		t.Fatal("a token of another cluster is taken")
	}
	for _, bad := range [][2]string{{"", secret}, {"a b", secret}, {strings.Repeat("x", 65), secret}, {"office", "too short"}, {"office", strings.Repeat("x", 1025)}} {
		if _, err := NewKey(bad[0], bad[1]); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, bad := range []string{"", "{}", `{"version":2}`, `{"version":1,"cluster":"","key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`} {
		if _, err := ParseKey([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

type fakeDNS struct {
	ips map[string][]netip.Addr
	srv map[string][]*net.SRV
}

func (d fakeDNS) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if ips := d.ips[host]; ips != nil {
		return ips, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (d fakeDNS) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if service != "" {
		name = "_" + service + "._" + proto + "." + name
	}
	if srv := d.srv[name]; srv != nil {
		return name, srv, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func TestExpand(t *testing.T) {
	dns := fakeDNS{
		ips: map[string][]netip.Addr{"im.example": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.2"), netip.MustParseAddr("2001:db8::1")}},
		srv: map[string][]*net.SRV{"_imroute._udp.both.example": {{Target: "a.example.", Port: 7910}}, "_mesh._udp.im": {{Target: "b.example.", Port: 7920}, {Target: ".", Port: 1}}},
	}
	dns.ips["both.example"] = dns.ips["im.example"][:1]
	for _, c := range []struct {
		in, want string
		fails    bool
	}{
		{"a:1 b:2 a:1", "a:1 b:2", false},
		{"dns:im.example", "192.0.2.1:7900 192.0.2.2:7900 [2001:db8::1]:7900", false},
		{"dns:im.example:8000 192.0.2.1:8000", "192.0.2.1:8000 192.0.2.2:8000 [2001:db8::1]:8000", false},
		{"dns:both.example", "a.example:7910 192.0.2.1:7900", false},
		{"dns:_mesh._udp.im", "b.example:7920", false},
		{"dns:nothing.example x:1", "x:1", true},
		{"dns:_no._udp.im", "", true},
	} {
		got, err := Expand(context.Background(), dns, strings.Fields(c.in))
		if strings.Join(got, " ") != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %v, %v; want %s", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "host", "host:", "dns:", "dns::7900", "dns:name:port", "dns:name:0", "dns:name:70000", "host:0", "host:70000"} {
		if CheckJoin(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, good := range []string{"host:7900", "[::1]:7900", "dns:name", "dns:name:7900", ":7900", "host:https"} {
		if err := CheckJoin(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func FuzzCheckJoin(f *testing.F) {
	for _, s := range []string{"host:1", "dns:x", "dns:x:1", "[::1]:1", "dns:[::1]:1", ":", "dns::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckJoin(s) != nil {
			return
		}
		if _, err := Expand(context.Background(), fakeDNS{}, []string{s}); err != nil && !strings.HasPrefix(s, DNSPrefix) {
			t.Fatalf("%q was good and is not: %v", s, err)
		}
	})
}
