package names

import (
	"errors"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
)

// id pads or cuts fuzzed bytes to an object id.
func fuzzID(b []byte) (id keys.ObjectID) {
	copy(id[:], b)
	return id
}

// FuzzOpenName: nothing panics, and what opens seals to the same bytes. Since no
// fuzzer forges an AES-SIV, the same bytes also go in as an authentic plaintext.
func FuzzOpenName(f *testing.F) {
	c := testCodec()
	seeds := 0
	for _, v := range buildVectors() {
		if !v.Has("host") {
			continue
		}
		var p, sidecar []byte
		if v.Has("plaintext") {
			p = v.Hex("plaintext")
		}
		if v.Has("sidecar") {
			sidecar = v.Hex("sidecar")
		}
		f.Add(v.Hex("parent"), v.Get("host"), p, sidecar)
		seeds++
	}
	if seeds < 40 {
		f.Fatalf("only %d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, parent []byte, host string, p, sidecar []byte) {
		id := fuzzID(parent)
		check := func(host string) {
			l, err := c.Open(id, host)
			if err != nil {
				if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrBadName) || l != (Link{}) {
					t.Fatalf("%+v, %v", l, err)
				}
				return
			}
			want := []byte(nil)
			if l.IsLong() {
				if err := c.OpenLong(id, &l, sidecar); err != nil {
					if !errors.Is(err, ErrSidecar) || l.Name != "" {
						t.Fatalf("%q, %v", l.Name, err)
					}
					return
				}
				want = sidecar
			}
			if CheckName(l.Name) != nil {
				t.Fatalf("opened the name %q", l.Name)
			}
			again, side := c.Seal(id, l)
			if again != host || string(side) != string(want) {
				t.Fatalf("%q seals to %q", host, again)
			}
			if IsSidecar(host) {
				t.Fatal("a name is a sidecar")
			}
		}
		check(host)
		if len(p) <= maxPlain {
			check(encoding.EncodeToString(c.siv.Seal(nil, appendAD(nil, labelName, &id), p)))
		}
	})
}

// FuzzSealName: whatever has a host name opens to itself.
func FuzzSealName(f *testing.F) {
	c := testCodec()
	f.Add([]byte("parent"), uint8(1), uint8(9), uint8(1), uint64(7), "name")
	f.Add([]byte("parent"), uint8(3), uint8(1), uint8(4), uint64(1<<63), string(make([]byte, 200)))
	f.Fuzz(func(t *testing.T, parent []byte, typ, geometry, flags uint8, seq uint64, name string) {
		l := Link{Type: Type(typ), Geometry: geometry, Flags: Flags(flags), ID: fuzzID(parent), Seq: seq, Name: name}
		host, sidecar := c.Seal(l.ID, l)
		if host == "" {
			return
		}
		got, err := c.Open(l.ID, host)
		if err == nil && got.IsLong() {
			err = c.OpenLong(l.ID, &got, sidecar)
		}
		if err != nil || len(host) > maxHost {
			t.Fatalf("%+v: %v, %d bytes of host name", l, err, len(host))
		}
		if got.Name != name || got.Type != l.Type || got.Geometry != geometry || got.Flags&^Long != l.Flags&^Long || got.ID != l.ID || got.Seq != seq {
			t.Fatalf("%+v became %+v", l, got)
		}
	})
}

// FuzzOpenTarget: as FuzzOpenName, for symlink targets.
func FuzzOpenTarget(f *testing.F) {
	c := testCodec()
	seeds := 0
	for _, v := range buildVectors() {
		if v.Has("host_target") {
			f.Add(v.Hex("id"), v.Get("host_target"), "target")
			seeds++
		}
	}
	if seeds < 10 {
		f.Fatalf("only %d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, object []byte, host, target string) {
		id := fuzzID(object)
		got, err := c.OpenTarget(id, host)
		if err == nil {
			if again := c.SealTarget(id, got); again != host {
				t.Fatalf("%q seals to %q", host, again)
			}
			if TargetLen(int64(len(host))) != int64(len(got)) {
				t.Fatalf("%d host bytes say %d", len(host), TargetLen(int64(len(host))))
			}
		} else if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrBadName) || got != "" {
			t.Fatalf("%q, %v", got, err)
		}
		sealed := c.SealTarget(id, target)
		if sealed == "" || len(sealed) > maxHostTarget {
			return
		}
		if got, err := c.OpenTarget(id, sealed); err != nil || got != target {
			t.Fatalf("%q became %q, %v", target, got, err)
		}
	})
}
