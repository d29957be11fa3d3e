package cache

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/cofferfs/coffer/container"
)

// Holes of the source are holes of the copy, whatever was there, and what lies around stays.
func TestCopyHoles(t *testing.T) {
	const frame, segment = 4 << 10, 64 << 10
	c := newCache(t, Config{MaxAge: time.Hour})
	src, dst := c.open(newFake(t, segment, frame), Hooks{}), c.open(newFake(t, segment, frame), Hooks{})
	data := bytes.Repeat([]byte("data"), frame)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(src.WriteAt(data, 0))     // stored
	must(src.WriteAt(data, 1<<20)) // stored
	must(src.Flush())              //
	must(src.WriteAt(data, 3<<20)) // dirty
	must(src.Grow(5 << 20))        // a hole at the end
	old := bytes.Repeat([]byte{7}, 2<<20)
	must(dst.WriteAt(old, 0))
	must(dst.Flush())
	const at = 8 << 10
	n, err := dst.CopyFrom(src, 0, at, 6<<20, nil)
	if err != nil || n != 6<<20 || dst.Size() != at+6<<20 {
		t.Fatalf("copied %d, %v, size %d", n, err, dst.Size())
	}
	must(dst.Flush())
	want := make([]byte, at+6<<20)
	copy(want, old[:at])
	for _, off := range []int{0, 1 << 20, 3 << 20} {
		copy(want[at+off:], data)
	}
	if got := readAll(t, dst); !bytes.Equal(got, want) {
		t.Fatal(firstDiff(got, want))
	}
	for _, s := range []struct{ from, data, hole int64 }{
		{at, at, at + 16<<10}, {at + 16<<10, at + 1<<20, at + 16<<10}, {at + 2<<20, at + 3<<20, at + 2<<20},
	} {
		data, err := dst.SeekData(s.from)
		hole, herr := dst.SeekHole(s.from)
		if data != s.data || hole != s.hole || err != nil || herr != nil {
			t.Errorf("from %d: data at %d (%v), hole at %d (%v); want %d and %d", s.from, data, err, hole, herr, s.data, s.hole)
		}
	}
	if _, err := dst.SeekData(at + 4<<20); !errors.Is(err, ErrNoData) {
		t.Errorf("behind the last data: %v", err)
	}
	finish(t, c, src, dst)
}

func TestCopyEnds(t *testing.T) {
	c := newCache(t, Config{MaxAge: time.Hour})
	st := newFake(t, 64<<10, 4<<10)
	src, dst := c.open(st, Hooks{}), c.open(newFake(t, 64<<10, 4<<10), Hooks{})
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20>>4)
	if err := src.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	// Cancelled: one piece is always done.
	cancel := make(chan struct{})
	close(cancel)
	n, err := dst.CopyFrom(src, 0, 0, int64(len(data)), cancel)
	if err != nil || n <= 0 || n >= int64(len(data)) || dst.Size() != n {
		t.Errorf("cancelled: %d, %v, size %d", n, err, dst.Size())
	}
	// A failing source: what came before it is there, and counted.
	if err := src.Flush(); err != nil {
		t.Fatal(err)
	}
	reads := 0
	st.hook = func(op string) error {
		if op == "ReadAt" {
			if reads++; reads > 2 {
				return errFake
			}
		}
		return nil
	}
	n, err = dst.CopyFrom(src, 0, 0, int64(len(data)), nil)
	if !errors.Is(err, errFake) || n != 2*copyPiece {
		t.Errorf("failing: %d, %v", n, err)
	}
	if got := readAll(t, dst); !bytes.Equal(got, data[:n]) {
		t.Error(firstDiff(got, data[:n]))
	}
	st.hook = nil
	if _, err := dst.CopyFrom(src, 0, dst.maxSize-10, 20, nil); !errors.Is(err, container.ErrTooLarge) {
		t.Errorf("beyond the largest file: %v", err)
	}
	finish(t, c, src, dst)
	if _, err := dst.CopyFrom(src, 0, 0, 10, nil); !errors.Is(err, container.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
