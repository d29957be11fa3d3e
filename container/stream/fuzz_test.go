package stream

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/vault"
)

// FuzzHeader: a header that parses encodes to the same bytes, MAC aside; and every refusal has a class and a place.
func FuzzHeader(f *testing.F) {
	f.Add(seal(f, nil, small)[:lay.header])
	var b bytes.Buffer
	if _, err := NewWriter(&b, Options{}, ToPassphrase([]byte("p"), cheap, nil), ToKeyFile(keyFile)); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(b.Bytes()))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 12 { // what only a checksum stands before is reached too
			fixed := bytes.Clone(raw)
			le32(fixed[8:], headerCRC(fixed))
			checkHeader(t, fixed)
		}
		checkHeader(t, raw)
	})
}

func checkHeader(t *testing.T, raw []byte) {
	h, err := readHeader(bytes.NewReader(raw))
	if err != nil {
		refused(t, err)
		return
	}
	again := h.encode()
	n := len(again) - macSize
	copy(again[8:12], h.raw[8:12])
	if !bytes.Equal(again[:n], h.raw[:n]) || len(h.raw) != len(again) {
		t.Fatal("what parses does not encode to the same bytes")
	}
}

func refused(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("no place in %v", err)
	}
	for _, class := range []error{container.ErrAuth, container.ErrCorrupt, container.ErrTruncated, container.ErrDigest, container.ErrVersion, container.ErrFeature, ErrNotStream} {
		if errors.Is(err, class) {
			return
		}
	}
	t.Fatalf("no class in %v", err)
}

// FuzzReader rearranges a stream: edits takes pieces of it, tail follows them. Only what was sealed comes out, from its beginning and whole segments of it;
// and the Reader and the ReaderAt agree on what is whole.
func FuzzReader(f *testing.F) {
	plain := pattern(16<<10 + 100)
	good := seal(f, plain, small)
	head, err := readHeader(bytes.NewReader(good))
	if err != nil {
		f.Fatal(err)
	}
	c, err := head.unlock(vault.KeyFile(keyFile), nil, 2)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 0, 255, 255}, []byte{})
	f.Add([]byte{0, 0, 255, 255}, []byte{0})
	f.Add([]byte{0, 0, 0, 0}, good[lay.header+lay.segment:])
	f.Add([]byte{0, 0, 0x42, 0x10, 0, 0, 0x42, 0x10}, []byte("CFR1"))
	f.Fuzz(func(t *testing.T, edits, tail []byte) {
		body := rearrange(good[lay.header:], edits, tail)
		r := newReader(bytes.NewReader(body), c, int64(lay.header), 2)
		defer r.Close()
		got, err := io.ReadAll(r)
		if !bytes.HasPrefix(plain, got) || err == nil && len(got) != len(plain) {
			t.Fatalf("%d bytes that were not sealed", len(got))
		}
		if err != nil {
			refused(t, err)
		}
		whole := append(bytes.Clone(good[:lay.header]), body...)
		at, aerr := newReaderAt(bytes.NewReader(whole), int64(len(whole)), c, int64(lay.header))
		if err == nil && aerr != nil || aerr == nil && at.Size() != int64(len(plain)) {
			t.Fatalf("Reader %v, ReaderAt %v", err, aerr)
		}
	})
}

// rearrange puts pieces of b one behind the other: each four bytes of edits are the beginning and the length of one.
func rearrange(b, edits, tail []byte) (out []byte) {
	for ; len(edits) >= 4 && len(out) < 4*len(b); edits = edits[4:] {
		from := min(int(edits[0])|int(edits[1])<<8, len(b))
		out = append(out, b[from:min(len(b), from+(int(edits[2])|int(edits[3])<<8))]...)
	}
	return append(out, tail...)
}
