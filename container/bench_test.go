package container

import (
	"fmt"
	mrand "math/rand/v2"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/journal"
)

// BenchmarkOverwrite writes pieces of a file of 256 MiB at random places, all of which go through the journal; with sync each is made durable.
func BenchmarkOverwrite(b *testing.B) {
	for _, c := range []struct {
		size int64
		sync bool
	}{{4 << 10, false}, {64 << 10, false}, {1 << 20, false}, {4 << 10, true}} {
		b.Run(fmt.Sprintf("%dK/sync=%v", c.size>>10, c.sync), func(b *testing.B) { benchOverwrite(b, c.size, c.sync) })
	}
}

func benchOverwrite(b *testing.B, n int64, sync bool) {
	root, err := disk.OpenRoot(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	mk, err := keys.MasterKeyFrom(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	g := geometries[8]
	e, err := NewEngine(EngineConfig{
		Ring:    keys.NewRing(mk, keys.VaultID{1}),
		Params:  keys.FileParams{Suite: suite.XAES256GCM, Digest: uint8(CRC32C), SegmentSize: uint32(g.SegmentSize), FrameSize: uint32(g.FrameSize)},
		Journal: &journal.Config{Dir: root, MAC: testMAC}, Host: root,
	})
	if err != nil {
		b.Fatal(err)
	}
	h, err := root.Create("f", 0o600)
	if err != nil {
		b.Fatal(err)
	}
	f, err := e.Create(h, testID(1), ObjectFile)
	if err != nil {
		b.Fatal(err)
	}
	const size = 256 << 20
	plain := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(plain)) {
		if err := f.WriteFrames(size, shifted(segmentWrites(g, plain, 0, int64(len(plain))), uint64(at)>>g.segShift)); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	ws := segmentWrites(g, plain, 0, n)
	rng := mrand.New(mrand.NewPCG(1, 2))
	b.SetBytes(n)
	b.ResetTimer()
	for range b.N {
		at := rng.Int64N(size/n) * n
		w := shifted(ws, uint64(at)>>g.segShift)
		if n < int64(g.SegmentSize) {
			i := g.frameOf(at)
			w[0].Frames = make([][]byte, g.Frames)
			w[0].Frames[i], w[0].Dirty = plain[:g.FrameSize], 1<<i
		}
		if err := f.WriteFrames(size, w); err != nil {
			b.Fatal(err)
		}
		if sync {
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.StopTimer()
	if err := f.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	if err := e.Close(true); err != nil {
		b.Fatal(err)
	}
}

// shifted is the same writes, some segments on.
func shifted(ws []SegmentWrite, by uint64) []SegmentWrite {
	out := append([]SegmentWrite(nil), ws...)
	for i := range out {
		out[i].Segment += by
	}
	return out
}
