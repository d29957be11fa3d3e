package cache

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// TestWriteThrough: whole frames go to the store in one call and leave nothing behind; a dirty frame in the way is written over in the cache; what the
// store refuses is dirty, read back, and stored by the next flush.
func TestWriteThrough(t *testing.T) {
	st := newFake(t, 64<<10, 4<<10)
	c := newCache(t, Config{MaxAge: time.Hour})
	c.through = throughBytes
	f := c.open(st, Hooks{})
	data := bytes.Repeat([]byte("0123456789abcdef"), batchBytes/16)
	if err := f.WriteThrough(data, 0); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Dirty != 0 || s.Clean != 0 || st.count("WriteFrames") != 1 {
		t.Errorf("%d bytes dirty, %d clean after %d calls", s.Dirty, s.Clean, st.count("WriteFrames"))
	}
	if err := f.WriteAt([]byte("dirty"), 300<<10); err != nil {
		t.Fatal(err)
	}
	clear(data)
	if err := f.WriteThrough(data, 0); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, f); !bytes.Equal(got, data) {
		t.Errorf("past a dirty frame: %s", firstDiff(got, data))
	}
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}

	st.hook = failing("WriteFrames")
	copy(data, "new")
	before := st.count("WriteFrames")
	if err := f.WriteThrough(data, 0); !errors.Is(err, errFake) {
		t.Errorf("write to a store that fails: %v", err)
	}
	if got := readAll(t, f); !bytes.Equal(got, data) {
		t.Errorf("after a failure: %s", firstDiff(got, data))
	}
	if err := f.WriteThrough(data, 0); err != nil || st.count("WriteFrames") != before+1 {
		t.Errorf("%d more calls of a store that has failed: %v", st.count("WriteFrames")-before-1, err)
	}
	st.hook = nil
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := st.content(); !bytes.Equal(got, data) {
		t.Errorf("stored in the end: %s", firstDiff(got, data))
	}
	finish(t, c, f)
}

// TestWriteThroughWithin: what begins within a frame leaves that one and its last one in the cache, where they wait for the rest of them, and no others.
func TestWriteThroughWithin(t *testing.T) {
	st := newFake(t, 4<<20, 64<<10)
	c := newCache(t, Config{MaxAge: time.Hour})
	c.through = throughBytes
	f := c.open(st, Hooks{})
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	const step = 1<<20 - 20<<10
	for off := 0; off < 3*step; off += step {
		if err := f.WriteThrough(data[off:off+step], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.Stats(); s.Dirty != 3*64<<10 || st.count("WriteFrames") != 3 {
		t.Errorf("%d bytes dirty after %d calls", s.Dirty, st.count("WriteFrames"))
	}
	if got := readAll(t, f); !bytes.Equal(got, data[:3*step]) {
		t.Error(firstDiff(got, data[:3*step]))
	}
	finish(t, c, f)
}
