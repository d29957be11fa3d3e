package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// TestEdge adds to a file and destroys every block of its edge then: what PutEdge brings back is the file as it was, and can be added to anew.
func TestEdge(t *testing.T) {
	g := geometries[0]
	at := func(group int) int64 { return int64(group) * g.groupPlain }
	for _, c := range []struct {
		data, end int64 // where a frame lies, and what the size is
		blocks    int
	}{
		{0, at(1), 1}, {at(headerGroups) - 5000, at(headerGroups), 1}, // in the groups of the header
		{at(headerGroups), at(headerGroups + 1), 4}, {at(headerGroups+127) + 1, at(headerGroups + 128), 4}, {at(headerGroups + 1<<14), at(headerGroups + 1<<14 + 1), 4},
		{at(3), at(200), 1}, {at(headerGroups), at(headerGroups + 130), 3}, // behind a hole
	} {
		r := newRig(t, g, suite.XAES256GCM, DefaultDigest)
		f, name := r.create()
		before, behind := random(5000), random(3*int(g.groupPlain)+77)
		r.must(write(f, before, c.data))
		r.must(f.SetSize(c.end))
		r.must(f.Flush())
		edge, err := f.Edge()
		r.must(err)
		if len(edge) != c.blocks*BlockSize {
			t.Errorf("%+v: %d blocks", c, len(edge)/BlockSize)
		}
		r.must(write(f, behind, c.end))
		r.must(f.Flush())
		r.must(f.Close())

		h, err := r.dir.Open(name, disk.ReadWrite)
		r.must(err)
		for k := 0; k < len(edge); k += BlockSize {
			addr := int64(0)
			if k > 0 {
				addr = g.nodeAddr(uint8(edge[k+8]), binary.LittleEndian.Uint64(edge[k+16:]))
			}
			_, err := h.WriteAt(make([]byte, BlockSize), addr)
			r.must(err)
		}
		r.must(h.Close())
		if f, err := r.openLoose(name); err == nil {
			t.Errorf("%+v: it opens without its edge", c)
			r.must(f.Close())
		}

		h, err = r.dir.Open(name, disk.ReadWrite)
		r.must(err)
		r.must(g.PutEdge(h, edge))
		if f, err = r.eng.Open(h, testID(1), OpenOptions{}); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		got := make([]byte, len(before))
		r.must(f.ReadAt(got, c.data))
		if f.Size() != c.end || !bytes.Equal(got, before) {
			t.Errorf("%+v: %d bytes, or others", c, f.Size())
		}
		r.must(write(f, behind, c.end))
		r.must(f.Flush())
		r.must(f.Close())
		f, err = r.open(name)
		r.must(err)
		got = make([]byte, len(behind))
		r.must(f.ReadAt(got, c.end))
		if !bytes.Equal(got, behind) {
			t.Errorf("%+v: what was added anew is not there", c)
		}
		r.must(f.Close())
	}
}

// TestPutEdgeRefuses: nothing is written where a block does not say what it is.
func TestPutEdgeRefuses(t *testing.T) {
	r := newRig(t, geometries[0], suite.XAES256GCM, DefaultDigest)
	h, err := r.dir.Create("edge", 0o600)
	r.must(err)
	defer h.Close()
	node := func(level uint8, index uint64) []byte {
		var b block
		b.beginNode(level, index, make([]byte, 16))
		b.finishNode()
		return append(make([]byte, BlockSize), b[:]...)
	}
	flipped := node(1, 5)
	flipped[BlockSize+100] ^= 1
	for what, edge := range map[string][]byte{
		"nothing": nil, "half a block": make([]byte, 2048), "too many": make([]byte, 5*BlockSize), "no node": make([]byte, 2*BlockSize), "a flipped bit": flipped,
		"no level": node(4, 0), "a meta block's": node(0, 0), "behind the last": node(3, topNodes), "far behind": node(1, 1<<60),
	} {
		if err := r.eng.Geometry().PutEdge(h, edge); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	r.must(r.eng.Geometry().PutEdge(h, node(3, 0)))
}
