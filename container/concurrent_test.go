package container

import (
	"bytes"
	"encoding/binary"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cofferfs/coffer/container/suite"
)

// TestConcurrent reads while one writer overwrites, appends, flushes and cuts: every frame that a read returns is one that was written whole, and no
// read fails. The metadata cache is small, so that blocks are evicted and verified again under the writer's feet.
func TestConcurrent(t *testing.T) {
	r := newRig(t, geometries[0], suite.XAES256GCM, CRC32C)
	g := r.eng.Geometry()
	f, _ := r.create()
	F := g.FrameSize
	const frames = 40 * 32 // 40 groups: beyond the header's pins
	frame := func(i int, version uint64) []byte {
		p := make([]byte, F)
		for at := 0; at < F; at += 16 {
			binary.LittleEndian.PutUint64(p[at:], uint64(i))
			binary.LittleEndian.PutUint64(p[at+8:], version)
		}
		return p
	}
	put := func(from, n int, version uint64) {
		var p []byte
		for i := from; i < from+n; i++ {
			p = append(p, frame(i, version)...)
		}
		if err := write(f, p, int64(from*F)); err != nil {
			t.Error(err)
		}
	}
	put(0, frames, 1)
	r.must(f.Flush())

	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := mrand.New(mrand.NewPCG(uint64(w), 2))
			p := make([]byte, 40*F)
			for !stop.Load() {
				from, n := rng.IntN(frames-40), 1+rng.IntN(40)
				if err := f.ReadAt(p[:n*F], int64(from*F)); err != nil {
					t.Error(err)
					return
				}
				for i := range n {
					got := p[i*F : (i+1)*F]
					version := binary.LittleEndian.Uint64(got[8:])
					if version == 0 && allZero(got) {
						continue // cut away at the moment
					}
					if !bytes.Equal(got, frame(from+i, version)) {
						t.Errorf("frame %d is no version that was written", from+i)
						return
					}
				}
			}
		})
	}
	rng := mrand.New(mrand.NewPCG(9, 9))
	rounds := 400
	if testing.Short() {
		rounds = 100
	}
	for version := uint64(2); version < uint64(rounds); version++ {
		from := rng.IntN(frames - 8)
		switch rng.IntN(8) {
		case 0:
			r.must(f.Flush())
		case 1:
			r.must(f.Discard(int64(from*F), int64(8*F)))
			put(from, 8, version)
		case 2:
			r.must(f.SetSize(int64((frames - 64) * F)))
			put(frames-64, 64, version)
		default:
			put(from, 1+rng.IntN(8), version)
		}
	}
	stop.Store(true)
	wg.Wait()
	r.must(f.Close())
}
