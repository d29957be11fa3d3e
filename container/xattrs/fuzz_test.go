package xattrs

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
)

func testCodec() *Codec { return New(make([]byte, 64)) }

// FuzzOpen: nothing panics, and what opens seals to the same bytes. Since no fuzzer forges an AES-SIV, the same bytes also go in as
// authentic plaintexts.
func FuzzOpen(f *testing.F) {
	c := testCodec()
	seeds := 0
	for _, v := range buildVectors() {
		if v.Has("host") {
			f.Add(v.Hex("id"), v.Has("trusted"), v.Get("host"), v.Hex("sealed"))
			seeds++
		}
	}
	if seeds < 30 {
		f.Fatalf("only %d seeds", seeds)
	}
	n, v := longForm("user." + string(bytes.Repeat([]byte("l"), 200)))
	f.Add(objectID[:], false, n, []byte(v+"value"))
	f.Add(objectID[:], true, "\x00user.x", []byte("value"))
	f.Fuzz(func(t *testing.T, id []byte, trusted bool, host string, sealed []byte) {
		o := Object{Trusted: trusted}
		copy(o.ID[:], id)
		check := func(host string, sealed []byte) {
			name, value, err := c.Open(o, host, sealed)
			if err != nil {
				if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrBadAttr) || name != "" || value != nil {
					t.Fatalf("%q %q, %v", name, value, err)
				}
				return
			}
			if CheckName(name) != nil || len(host) > 255 {
				t.Fatalf("%q opens as %q", host, name)
			}
			if h, s := c.Seal(o, name, value); h != host || !bytes.Equal(s, sealed) {
				t.Fatalf("%q seals to %q", host, h)
			}
		}
		check(host, sealed)
		if len(host) <= 1+maxShort {
			tt := c.siv.Seal(nil, ad(nil, labelName, o, nil), []byte(host))
			check(o.prefix()+encoding.EncodeToString(tt), c.siv.Seal(nil, ad(nil, labelValue, o, tt), sealed))
		}
	})
}

// FuzzSeal: every attribute that Linux can have opens to itself.
func FuzzSeal(f *testing.F) {
	c := testCodec()
	f.Add([]byte("id"), "user.x", []byte("value"))
	f.Add([]byte("id"), "user."+string(bytes.Repeat([]byte("l"), 250)), []byte{})
	f.Fuzz(func(t *testing.T, id []byte, name string, value []byte) {
		if CheckName(name) != nil {
			return
		}
		o := Object{Trusted: true}
		copy(o.ID[:], id)
		host, sealed := c.Seal(o, name, value)
		n, v, err := c.Open(o, host, sealed)
		if err != nil || n != name || !bytes.Equal(v, value) || len(host) > 255 {
			t.Fatalf("%q became %q, %v", name, n, err)
		}
		if _, _, err := c.Open(Object{ID: keys.ObjectID{15: ^o.ID[15]}, Trusted: true}, host, sealed); !errors.Is(err, ErrForeign) {
			t.Fatalf("opens on another object: %v", err)
		}
	})
}

func FuzzOpenMode(f *testing.F) {
	c := testCodec()
	for _, v := range buildVectors() {
		if v.Has("mode") {
			f.Add(v.Hex("sealed"))
		}
	}
	f.Add([]byte{1, 1, 0x24, 1})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		o := Object{ID: objectID}
		for _, s := range [][]byte{sealed, c.siv.Seal(nil, ad(nil, labelMode, o, nil), sealed)} {
			mode, set, err := c.OpenMode(o, s)
			if err != nil && !errors.Is(err, ErrBadAttr) || mode > permissions {
				t.Fatalf("%o, %v", mode, err)
			}
			if set && !bytes.Equal(c.SealMode(o, mode), s) {
				t.Fatalf("%o seals to something else", mode)
			}
		}
	})
}
