package container

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// past is a host that reads past its memory whatever it is asked for so.
type past struct {
	disk.File
	reads int
	alter func(p []byte, n int) int // changes what was read, and answers how much
}

func (h *past) ReadPast(p []byte, off int64) (int, bool, error) {
	h.reads++
	n, err := h.ReadAt(p, off)
	if h.alter != nil {
		n = h.alter(p, n)
	}
	return n, true, err
}

// TestScatteredReadsGoPastMemory: after a few reads of whole segments all over a file the next ones do, and no others; what comes so is verified as all is.
func TestScatteredReadsGoPastMemory(t *testing.T) {
	g, err := GeometryFor(64<<10, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	const apart, places = 2 * streamWindow, 3 * scatterFew
	r := newRig(t, g, suite.XAES256GCM, CRC32C)
	f, name := r.create()
	data := make([][]byte, places)
	for i := range data {
		data[i] = random(g.SegmentSize)
		r.must(write(f, data[i], int64(i)*apart))
	}
	r.must(f.Flush())
	r.must(f.Close())
	h, err := r.dir.Open(name, disk.ReadWrite)
	r.must(err)
	host := &past{File: h}
	f, err = r.eng.Open(host, testID(r.n), OpenOptions{TrustLength: true})
	r.must(err)

	p := make([]byte, g.SegmentSize)
	read := func(i, n int) error { return f.ReadAt(p[:n], int64(i)*apart) }
	for i := range places { // one behind the other, as seen by who reads little
		for at := 0; at < len(p); at += scatterMin / 2 {
			r.must(f.ReadAt(p[:scatterMin/2], int64(i)*apart+int64(at)))
		}
	}
	for range places {
		r.must(read(0, scatterMin))
	}
	if host.reads != 0 {
		t.Errorf("%d small reads, or of one place, went past the host's memory", host.reads)
	}
	for i := range places {
		r.must(read(i, len(p)))
		if !bytes.Equal(p, data[i]) {
			t.Fatalf("segment at %d: wrong bytes", i*apart)
		}
		if want := max(0, i-scatterFew+1); host.reads != want { // the first one is where the last read was
			t.Fatalf("after %d scattered reads %d went past the host's memory, want %d", i+1, host.reads, want)
		}
	}
	for i, c := range []struct {
		name  string
		alter func(p []byte, n int) int
		want  error
	}{
		{"changed", func(p []byte, n int) int { p[n-1] ^= 1; return n }, ErrAuth},
		{"cut", func(_ []byte, n int) int { return n - 1 }, ErrTruncated},
	} {
		host.alter = c.alter
		var fe *FrameError
		if err := read(i, len(p)); !errors.Is(err, c.want) || !errors.As(err, &fe) || fe.Frame != uint32(g.Frames-1) {
			t.Errorf("%s: %v, want %v of the last frame", c.name, err, c.want)
		}
	}
	host.alter = nil
	r.must(f.Close())
}
