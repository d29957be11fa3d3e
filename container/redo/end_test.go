package redo

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/vectors"
)

// endVectors builds the vectors of ends, per byte of FORMAT.md.
func endVectors() map[string]*vectors.Vector {
	all := map[string]*vectors.Vector{}
	add := func(name, expect, comment string, b []byte) *vectors.Vector {
		v := new(vectors.Vector).Set("expect", expect).Set("comment", comment).SetHex("head", b)
		all["end_"+name] = v
		return v
	}
	id := bytes.Repeat([]byte{0xa1}, 16)
	end := func(kind, flags, names byte, tail string) []byte {
		b := append([]byte{kind, flags, names, 0}, make([]byte, 12)...)
		return append(append(b, id...), tail...)
	}
	add("durable", "success", "the host has all of the file", end(4, 0, 0, "")).SetHex("id", id).Set("path", "").Set("removed", "false")
	add("removed", "success", "the file lost its name", end(4, 1, 2, "\x03dir\x04file")).SetHex("id", id).Set("path", "dir/file").Set("removed", "true")
	add("removed_anywhere", "success", "the file lost a name that is not known", end(4, 1, 0, "")).SetHex("id", id).Set("path", "").Set("removed", "true")
	add("flags", "malformed", "an unknown flag", end(4, 2, 0, ""))
	add("path_count", "malformed", "more names than there are", end(4, 1, 3, "\x03dir\x04file"))
	add("path_empty_name", "malformed", "a name of 0 bytes", end(4, 1, 2, "\x00\x04file"))
	add("tail", "malformed", "a byte behind the path", end(4, 1, 1, "\x04file\x00"))
	add("short", "malformed", "31 bytes", end(4, 0, 0, "")[:31])
	add("of_file", "malformed", "the kind of a file", end(1, 0, 0, ""))
	reserved := end(4, 0, 0, "")
	reserved[15] = 1
	add("reserved", "malformed", "a reserved byte", reserved)
	return all
}

func TestEndVectors(t *testing.T) {
	paths := vectors.Sync(t, vectorDir, "end_", endVectors(), *update)
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		e, err := ParseEnd(v.Hex("head"))
		if err != nil {
			return err
		}
		if e.ID != keys.ObjectID(v.Hex("id")) || strings.Join(e.Path, "/") != v.Get("path") || e.Removed != (v.Get("removed") == "true") {
			t.Errorf("parsed %+v", e)
		}
		if again := e.Append([]byte{9}); !bytes.Equal(again[1:], v.Hex("head")) {
			t.Errorf("re-encoded %x", again)
		}
		return nil
	})
}

// FuzzParseEnd: nothing panics, and what parses is written back byte for byte.
func FuzzParseEnd(f *testing.F) {
	for _, v := range endVectors() {
		f.Add(v.Hex("head"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEnd(b)
		if err != nil {
			if e != nil || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrKind) {
				t.Fatalf("%+v, %v", e, err)
			}
			return
		}
		if again := e.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x is written back as %x", b, again)
		}
	})
}
