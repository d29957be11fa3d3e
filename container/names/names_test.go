package names

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
)

var (
	parentID = keys.ObjectID{0: 0x10, 15: 0x1f}
	otherID  = keys.ObjectID{0: 0x20, 15: 0x2f}
	objectID = keys.ObjectID{0: 0x30, 15: 0x3f}
)

func testCodec() *Codec {
	key := make([]byte, 64)
	for i := range key {
		key[i] = byte(i)
	}
	return New(key)
}

// link is a file with a name.
func link(name string) Link {
	return Link{Type: File, Geometry: 9, ID: objectID, Seq: 0x0102030405060708, Name: name}
}

// roundTrip seals and opens l and returns what came back, and its host name.
func roundTrip(t *testing.T, c *Codec, l Link) (Link, string) {
	t.Helper()
	host, sidecar := c.Seal(parentID, l)
	if host == "" {
		t.Fatalf("%+v has no host name", l)
	}
	if len(host) > 255 {
		t.Fatalf("a name of %d bytes has a host name of %d", len(l.Name), len(host))
	}
	got, err := c.Open(parentID, host)
	if err != nil {
		t.Fatalf("name of %d bytes: %v", len(l.Name), err)
	}
	if long := len(l.Name) > 146; long != (sidecar != nil) || long != got.IsLong() || long != (got.Flags&Long != 0) {
		t.Fatalf("name of %d bytes: long %v, sidecar %v", len(l.Name), got.IsLong(), sidecar != nil)
	}
	if sidecar != nil {
		if got.Name != "" || len(sidecar) != len(l.Name)+sidecarOverhead {
			t.Fatalf("name of %d bytes: %q, sidecar of %d bytes", len(l.Name), got.Name, len(sidecar))
		}
		if err := c.OpenLong(parentID, &got, sidecar); err != nil {
			t.Fatal(err)
		}
		if !IsSidecar(SidecarName(host)) || len(SidecarName(host)) > 255 {
			t.Fatalf("the sidecar's name %q is none", SidecarName(host))
		}
	}
	if got.Name != l.Name || got.Type != l.Type || got.ID != l.ID || got.Seq != l.Seq || got.Geometry != l.Geometry || got.Flags&^Long != l.Flags&^Long {
		t.Fatalf("%+v became %+v", l, got)
	}
	if again, side := c.Seal(parentID, got); again != host || string(side) != string(sidecar) {
		t.Fatalf("what opened seals to %q, was %q", again, host)
	}
	return got, host
}

// Host name lengths as FORMAT.md has them: 4/3 of 16 and the padded plaintext.
func TestLengths(t *testing.T) {
	c := testCodec()
	longest := 0
	for n := 1; n <= MaxName; n++ {
		_, host := roundTrip(t, c, link(strings.Repeat("n", n)))
		p := min((29+n+15)/16*16, 175)
		if n > 146 {
			p = 64
		}
		if want := ((p+16)*4 + 2) / 3; len(host) != want {
			t.Errorf("name of %d bytes: host name of %d, want %d", n, len(host), want)
		}
		longest = max(longest, len(host))
	}
	if longest != 255 {
		t.Errorf("the longest host name has %d bytes, want 255", longest)
	}
}

func TestTypes(t *testing.T) {
	c := testCodec()
	for typ, mode := range map[Type]uint32{
		File: unix.S_IFREG, Dir: unix.S_IFDIR, Symlink: unix.S_IFLNK, FIFO: unix.S_IFIFO, Socket: unix.S_IFSOCK, CharDev: unix.S_IFCHR, BlockDev: unix.S_IFBLK,
	} {
		if typ.Mode() != mode || TypeOfMode(mode|0o644) != typ || !typ.Valid() {
			t.Errorf("%v: mode %o", typ, typ.Mode())
		}
		l := Link{Type: typ, ID: objectID, Seq: 1, Name: "x"}
		if typ == File {
			l.Geometry = 1
		}
		got, _ := roundTrip(t, c, l)
		if got.HostMode() != mode || got.IsContainer() != (typ == File) {
			t.Errorf("%v: host mode %o", typ, got.HostMode())
		}
	}
	got, _ := roundTrip(t, c, Link{Type: Symlink, Geometry: 9, Flags: ContainerSymlink | NoHeader, ID: objectID, Seq: 1, Name: strings.Repeat("s", 200)})
	if got.HostMode() != unix.S_IFREG || !got.IsContainer() {
		t.Errorf("container symlink: host mode %o", got.HostMode())
	}
	for _, typ := range []Type{0, 8, 255} {
		if typ.Valid() || typ.Mode() != 0 || typ.String() != "unknown type" {
			t.Errorf("type %d passes for a known one", uint8(typ))
		}
	}
	if TypeOfMode(0o644) != 0 {
		t.Error("a mode without a type has one")
	}
}

// Names are bytes.
func TestOddNames(t *testing.T) {
	c := testCodec()
	for _, name := range []string{
		"\xff\xfe", "\x01", " ", "...", ".x", "a\nb", "né", "-", strings.Repeat("\x80", 255), "\xc0\xaf", ".coffer", "x.name",
	} {
		roundTrip(t, c, link(name))
	}
	for b := 1; b < 256; b++ {
		if b != '/' && b != '.' {
			roundTrip(t, c, link(string([]byte{byte(b)})))
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]error{
		"": ErrBadName, ".": ErrBadName, "..": ErrBadName, "a/b": ErrBadName, "/": ErrBadName, "a\x00": ErrBadName, "\x00": ErrBadName,
		strings.Repeat("n", 256): ErrTooLong, strings.Repeat("n", 255): nil, "...": nil, "a": nil,
	} {
		if err := CheckName(name); !errors.Is(err, want) {
			t.Errorf("CheckName(%q) = %v, want %v", name, err, want)
		}
		if host, sidecar := testCodec().Seal(parentID, link(name)); (host == "") != (want != nil) || host == "" && sidecar != nil {
			t.Errorf("%q has the host name %q", name, host)
		}
	}
}

// Seal gives no host name to what Open would not accept.
func TestSealRefuses(t *testing.T) {
	for what, change := range map[string]func(*Link){
		"no type":                       func(l *Link) { l.Type = 0 },
		"an unknown type":               func(l *Link) { l.Type = 8 },
		"an unknown flag":               func(l *Link) { l.Flags = 8 },
		"a file without a geometry":     func(l *Link) { l.Geometry = 0 },
		"an unknown geometry":           func(l *Link) { l.Geometry = 10 },
		"a directory with a geometry":   func(l *Link) { l.Type = Dir },
		"a container that is a FIFO":    func(l *Link) { l.Type, l.Flags = FIFO, ContainerSymlink },
		"a container that is a file":    func(l *Link) { l.Flags = ContainerSymlink },
		"a container without geometry":  func(l *Link) { l.Type, l.Flags, l.Geometry = Symlink, ContainerSymlink, 0 },
		"a plain symlink with geometry": func(l *Link) { l.Type = Symlink },
	} {
		l := link("name")
		change(&l)
		if host, _ := testCodec().Seal(parentID, l); host != "" {
			t.Errorf("%s has a host name", what)
		}
	}
	// The flag Long is the codec's to set.
	l := link("name")
	l.Flags = Long
	if host, sidecar := testCodec().Seal(parentID, l); sidecar != nil {
		t.Errorf("a short name flagged long has a sidecar beside %q", host)
	}
}

// A sealed name opens in its own directory, under its own key, with all its
// bits and in its one spelling only.
func TestForeign(t *testing.T) {
	c := testCodec()
	for _, name := range []string{"n", strings.Repeat("n", 10), strings.Repeat("n", 146), strings.Repeat("n", 255)} {
		host, _ := c.Seal(parentID, link(name))
		refuse := func(what, host string, parent keys.ObjectID, c *Codec) {
			t.Helper()
			if l, err := c.Open(parent, host); !errors.Is(err, ErrForeign) || l != (Link{}) {
				t.Fatalf("%s: %v, want ErrForeign", what, err)
			}
		}
		refuse("another directory", host, otherID, c)
		refuse("another key", host, parentID, New(make([]byte, 64)))
		for i := range host {
			for _, ch := range "AB-_z0" {
				if byte(ch) != host[i] {
					refuse("another character", host[:i]+string(ch)+host[i+1:], parentID, c)
				}
			}
			refuse("cut", host[:i], parentID, c)
		}
		for _, s := range []string{"=", "==", "\n", "\r\n", "A", "AA", "AAA", "AAAA", ".name", " "} {
			refuse("with an end", host+s, parentID, c)
			refuse("with a start", s+host, parentID, c)
			refuse("with a middle", host[:4]+s+host[4:], parentID, c)
		}
		refuse("standard alphabet", strings.NewReplacer("-", "+", "_", "/").Replace(host)+"+", parentID, c)
	}
	for _, host := range []string{"", "a", ".coffer", "lost+found", "README.md", strings.Repeat("A", 255), strings.Repeat("A", 256), strings.Repeat("A", 4096)} {
		if _, err := c.Open(parentID, host); !errors.Is(err, ErrForeign) {
			t.Errorf("%.20q: %v, want ErrForeign", host, err)
		}
	}
}

// Bits behind the last byte must be zero.
func TestNonCanonicalBits(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	c := testCodec()
	for _, n := range []int{1, 10, 30, 200} { // remainders of 4 and 2 bits
		host, _ := c.Seal(parentID, link(strings.Repeat("n", n)))
		spare := 6 * len(host) % 8
		last := strings.IndexByte(alphabet, host[len(host)-1])
		for bits := 1; bits < 1<<spare; bits++ {
			twin := host[:len(host)-1] + string(alphabet[last|bits])
			if _, err := c.Open(parentID, twin); !errors.Is(err, ErrForeign) {
				t.Errorf("trailing bits %b: %v, want ErrForeign", bits, err)
			}
		}
	}
}

func TestSidecars(t *testing.T) {
	c := testCodec()
	name := strings.Repeat("long ", 40)
	host, sidecar := c.Seal(parentID, link(name))
	opened, err := c.Open(parentID, host)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, parent keys.ObjectID, l Link, sidecar []byte) {
		t.Helper()
		before := l
		if err := c.OpenLong(parent, &l, sidecar); !errors.Is(err, ErrSidecar) || !errors.Is(err, ErrBadName) || l != before {
			t.Errorf("%s: %v, want ErrSidecar", what, err)
		}
	}
	for i := range sidecar {
		sidecar[i] ^= 1
		refuse("a flipped bit", parentID, opened, sidecar)
		sidecar[i] ^= 1
		refuse("cut", parentID, opened, sidecar[:i])
	}
	refuse("missing", parentID, opened, nil)
	refuse("a trailing byte", parentID, opened, append(sidecar[:len(sidecar):len(sidecar)], 0))
	refuse("another directory", otherID, opened, sidecar)
	_, other := c.Seal(parentID, link(strings.Repeat("gnol ", 40)))
	refuse("the sidecar of another name", parentID, opened, other)
	short, _ := c.Open(parentID, first(c.Seal(parentID, link("short"))))
	refuse("a short name", parentID, short, sidecar)

	if err := c.OpenLong(parentID, &opened, sidecar); err != nil || opened.Name != name {
		t.Errorf("the right one: %v", err)
	}
	for s, want := range map[string]bool{
		host + ".name": true, host: false, ".name": false, "file.name": false, host + ".name.name": false, host[1:] + ".name": false,
		host[:3] + "\n" + host[4:] + ".name": false, host[:3] + "." + host[4:] + ".name": false,
		first(c.Seal(parentID, link("short"))) + ".name": false,
	} {
		if IsSidecar(s) != want {
			t.Errorf("IsSidecar(%q) = %v", s, !want)
		}
	}
}

func first(s string, _ []byte) string { return s }

func TestNewPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("New takes a key of 32 bytes")
		}
	}()
	New(make([]byte, 32))
}

func TestTargets(t *testing.T) {
	c := testCodec()
	for _, n := range []int{1, 2, 3, 15, 16, 17, 100, MaxTarget} {
		target := strings.Repeat("t", n)
		host := c.SealTarget(objectID, target)
		if got, err := c.OpenTarget(objectID, host); err != nil || got != target {
			t.Fatalf("target of %d bytes: %v", n, err)
		}
		if len(host) > maxHostTarget || TargetLen(int64(len(host))) != int64(n) {
			t.Errorf("target of %d bytes: host target of %d, which says %d", n, len(host), TargetLen(int64(len(host))))
		}
		if _, err := c.OpenTarget(otherID, host); !errors.Is(err, ErrForeign) {
			t.Errorf("under another id: %v, want ErrForeign", err)
		}
		for i := 0; i < len(host); i += 1 + len(host)/100 {
			ch := "A"
			if host[i] == 'A' {
				ch = "B"
			}
			for _, bad := range []string{host[:i] + ch + host[i+1:], host[:i], host[:i] + "\n" + host[i:], host[:i] + "=" + host[i:]} {
				if _, err := c.OpenTarget(objectID, bad); !errors.Is(err, ErrForeign) {
					t.Fatalf("tampered at %d: %v, want ErrForeign", i, err)
				}
			}
		}
	}
	if n := len(c.SealTarget(objectID, strings.Repeat("t", MaxTarget+1))); n <= maxHostTarget {
		t.Errorf("a target beyond MaxTarget fits: %d bytes", n)
	}
	for _, target := range []string{"", "a\x00b"} {
		if host := c.SealTarget(objectID, target); host != "" {
			t.Errorf("%q has the host target %q", target, host)
		}
	}
	for _, host := range []string{"", "/etc/passwd", "AAAA", strings.Repeat("A", 4096)} {
		if _, err := c.OpenTarget(objectID, host); !errors.Is(err, ErrForeign) {
			t.Errorf("%.20q: %v, want ErrForeign", host, err)
		}
	}
	// Names, sidecars and targets have labels of their own.
	host, sidecar := c.Seal(objectID, link(strings.Repeat("n", 200)))
	for _, s := range []string{host, encoding.EncodeToString(sidecar)} {
		if _, err := c.OpenTarget(objectID, s); !errors.Is(err, ErrForeign) {
			t.Errorf("a name opens as a target: %v", err)
		}
	}
	for n := int64(0); n < 22; n++ {
		if TargetLen(n) != 0 {
			t.Errorf("TargetLen(%d) = %d", n, TargetLen(n))
		}
	}
}
