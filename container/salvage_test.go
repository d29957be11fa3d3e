package container

import (
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
)

// Who only reads a file of which a power cut took parts has them as holes, and nothing to hand over: neither a flush nor the close fails for that.
func TestSalvageReadOnly(t *testing.T) {
	for name, lose := range map[string]func(g *Geometry) int64{
		"a frame":      func(g *Geometry) int64 { return g.slotAddr(0, 1) },
		"a meta block": func(g *Geometry) int64 { return g.slotAddr(uint64(g.perGroup), 0) - BlockSize },
	} {
		t.Run(name, func(t *testing.T) {
			g := geometries[0]
			f := &fill{logRig: newLogRig(t, g)}
			h, err := f.root.Create("f", 0o600)
			f.must(err)
			c, err := f.eng.Create(h, testID(1), ObjectFile)
			f.must(err)
			f.must(f.write(c, 0, 2*g.perGroup))
			f.must(c.Flush())
			_, err = h.WriteAt(make([]byte, BlockSize), lose(g))
			f.must(err)

			r, err := f.root.Open("f", disk.ReadOnly)
			f.must(err)
			back, err := f.eng.Open(r, testID(1), OpenOptions{ReadOnly: true, MayLackHeader: true, Young: true})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, back.Size())
			f.must(back.ReadAt(got, 0))
			f.must(back.Flush())
			f.must(back.Sync())
			f.must(back.Close())
		})
	}
}
