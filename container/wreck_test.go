package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// saved opens a wreck with the engine and returns what is saved of it.
func saved(r *rig, eng *Engine, name string, g *Geometry) ([]byte, Checked, *Wreck) {
	r.t.Helper()
	h, err := r.dir.Open(name, disk.ReadOnly)
	r.must(err)
	defer h.Close()
	var n int
	fmt.Sscanf(name, "f%d", &n)
	w, err := eng.Wreck(h, testID(n), g)
	r.must(err)
	dry, err := w.Save(context.Background(), nil, nil)
	r.must(err)
	b, err := eng.Builder(w.Geometry())
	r.must(err)
	r.n++
	to, err := r.dir.Create(fmt.Sprintf("f%d", r.n), 0o600)
	r.must(err)
	f, err := b.Create(to, testID(r.n), ObjectFile)
	r.must(err)
	got, err := w.Save(context.Background(), f, nil)
	r.must(err)
	if fmt.Sprint(got) != fmt.Sprint(dry) {
		r.t.Errorf("a dry run says %+v, and it became %+v", dry, got)
	}
	r.must(f.Sync())
	data := make([]byte, f.Size())
	r.must(f.ReadAt(data, 0))
	c, err := f.Verify(context.Background(), nil, nil)
	r.must(err)
	if !c.Good() || c.Frames != got.Frames {
		r.t.Errorf("the new file: %+v of %+v", c, got)
	}
	r.must(f.Close())
	return data, got, w
}

// TestWreck loses the header, or what vouches for the rest, of a file of every geometry: all frames are saved all the same, of a container too whose suite
// and digest are not the vault's, where its header says so.
func TestWreck(t *testing.T) {
	for _, g := range geometries {
		r := newRig(t, g, suite.XChaCha20Poly1305, SHA256)
		f, name := r.create()
		data := random(2*g.SegmentSize + g.FrameSize + 77)
		if int64(len(data)) < g.groupPlain {
			data = append(data, random(int(g.groupPlain))...)
		}
		r.must(write(f, data, 0))
		r.must(f.Sync())
		r.must(f.Close())
		path := filepath.Join(r.path, name)
		good, err := os.ReadFile(path)
		r.must(err)
		other := r.engine(geometries[0], suite.XAES256GCM, CRC32C)
		first := int64(g.perGroup) // records of the first group
		for _, c := range []struct {
			what   string
			eng    *Engine
			damage func(b []byte)
			lost   int64 // at most
		}{
			{"nothing", r.eng, func([]byte) {}, 0},
			{"header of zeros", r.eng, func(b []byte) { clear(b[:BlockSize]) }, 0},
			{"header CRC, another vault default", other, func(b []byte) { b[300] ^= 1 }, 0},
			{"pins in the header", r.eng, func(b []byte) { clear(b[bodyOffset : bodyOffset+64]) }, 0},
			{"a record", r.eng, func(b []byte) { b[g.groupAddr(0)+300] ^= 1 }, int64(g.SegmentSize)},
			{"a meta block of zeros", r.eng, func(b []byte) { clear(b[BlockSize : 2*BlockSize]) }, first * int64(g.SegmentSize)},
			{"a frame", r.eng, func(b []byte) { b[g.slotAddr(0, 1)] ^= 1 }, int64(g.FrameSize)},
		} {
			bad := bytes.Clone(good)
			c.damage(bad)
			r.must(os.WriteFile(path, bad, 0o600))
			got, checked, w := saved(r, c.eng, name, g)
			if len(got) != len(data) {
				t.Fatalf("%v, %s: %d bytes, want %d", g, c.what, len(got), len(data))
			}
			if n := checked.LostBytes(); n > c.lost || c.lost > 0 && n == 0 {
				t.Errorf("%v, %s: %d bytes lost, want at most %d: %v", g, c.what, n, c.lost, checked.Lost)
			}
			if w.Headless() != (c.what[:6] == "header" || c.what == "pins in the header") {
				t.Errorf("%v, %s: headless %v", g, c.what, w.Headless())
			}
			want := bytes.Clone(data)
			for _, l := range checked.Lost {
				clear(want[l.From:l.To])
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%v, %s: what was saved differs", g, c.what)
			}
		}
	}
}

// TestWreckRefuses what is no damage.
func TestWreckRefuses(t *testing.T) {
	r := newRig(t, geometries[0], suite.XAES256GCM, CRC32C)
	f, name := r.create()
	r.must(write(f, random(100), 0))
	r.must(f.Sync())
	id := f.ID()
	r.must(f.Close())
	h, err := r.dir.Open(name, disk.ReadWrite)
	r.must(err)
	defer h.Close()
	var b block
	_, err = h.ReadAt(b[:], 0)
	r.must(err)
	if got, g, object, err := r.eng.Whose(h); got != id || g != geometries[0] || object != ObjectFile || err != nil {
		t.Errorf("%v %v %d %v", got, g, object, err)
	}
	b[24] = 1 // an incompat feature
	crc := crcExcept(b[:], 8)
	b[8], b[9], b[10], b[11] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
	_, err = h.WriteAt(b[:], 0)
	r.must(err)
	if _, err := r.eng.Wreck(h, id, geometries[0]); !errors.Is(err, ErrFeature) {
		t.Errorf("a newer feature: %v", err)
	}
	if _, _, _, err := r.eng.Whose(h); !errors.Is(err, ErrFeature) {
		t.Errorf("a newer feature: %v", err)
	}
}
