package container

import (
	"errors"
	"math/rand/v2"
	"testing"
)

// TestGeometryTable holds the nine pairs against the numbers of FORMAT.md section 4.
func TestGeometryTable(t *testing.T) {
	const mib, tib, pib = 1 << 20, 1 << 40, 1 << 50
	table := []struct {
		segment, frame, n, record, perGroup int
		stride, largest                     int64
	}{
		{16 << 10, 4 << 10, 4, 512, 8, 135168, 32*tib + 4*mib},
		{32 << 10, 8 << 10, 4, 512, 8, 266240, 64*tib + 8*mib},
		{64 << 10, 16 << 10, 4, 512, 8, 528384, 128*tib + 16*mib},
		{128 << 10, 16 << 10, 8, 1024, 4, 528384, 128*tib + 16*mib},
		{256 << 10, 16 << 10, 16, 1024, 4, 1052672, 256*tib + 32*mib},
		{1 << 20, 32 << 10, 32, 2048, 2, 2101248, 512*tib + 64*mib},
		{2 << 20, 64 << 10, 32, 2048, 2, 4198400, pib + 128*mib},
		{4 << 20, 64 << 10, 64, 4096, 1, 4198400, pib + 128*mib},
		{64 << 10, 4 << 10, 16, 1024, 4, 266240, 64*tib + 8*mib},
	}
	if len(table) != len(geometries) {
		t.Fatalf("%d geometries, want %d", len(geometries), len(table))
	}
	for i, want := range table {
		g, err := GeometryByID(uint8(i + 1))
		if err != nil {
			t.Fatal(err)
		}
		if g.SegmentSize != want.segment || g.FrameSize != want.frame || g.Frames != want.n || g.record != want.record ||
			g.perGroup != want.perGroup || g.stride != want.stride || g.MaxSize() != want.largest {
			t.Errorf("geometry %d: %+v, largest %d, want %+v", i+1, *g, g.MaxSize(), want)
		}
		if same, err := GeometryFor(want.segment, want.frame); err != nil || same != g {
			t.Errorf("GeometryFor(%d, %d) = %v, %v", want.segment, want.frame, same, err)
		}
		if g.HostLength(g.MaxSize()) < 0 {
			t.Errorf("%v: host length of the largest file overflows", g)
		}
	}
	if auto, err := GeometryFor(4<<20, 0); err != nil || auto.FrameSize != 64<<10 {
		t.Errorf("auto for 4 MiB: %v, %v", auto, err)
	}
	for _, bad := range [][2]int{{64 << 10, 8 << 10}, {8 << 10, 4 << 10}, {0, 0}, {-1, 4096}, {64 << 10, 64 << 10}} {
		if _, err := GeometryFor(bad[0], bad[1]); !errors.Is(err, ErrGeometry) {
			t.Errorf("GeometryFor(%d, %d) = %v, want ErrGeometry", bad[0], bad[1], err)
		}
	}
	if _, err := GeometryByID(10); !errors.Is(err, ErrFeature) {
		t.Errorf("geometry 10: %v", err)
	}
}

// TestGeometryTiling walks over millions of groups and checks that nodes, meta blocks and slots tile the host file: each begins where
// the one before ended.
func TestGeometryTiling(t *testing.T) {
	for _, g := range geometries {
		groups := uint64(3 << 20)
		if testing.Short() {
			groups = 1 << 18
		}
		next := int64(BlockSize) // the header
		for j := range groups {
			if j >= headerGroups {
				q := j - headerGroups
				for level := uint8(treeLevels); level > 0; level-- {
					if shift := fanoutShift * uint(level); q&(1<<shift-1) == 0 {
						if at := g.nodeAddr(level, q>>shift); at != next {
							t.Fatalf("%v: node %d of level %d at %d, want %d", g, q>>shift, level, at, next)
						}
						next += BlockSize
					}
				}
			}
			if at := g.groupAddr(j); at != next {
				t.Fatalf("%v: group %d at %d, want %d", g, j, at, next)
			}
			next += g.stride
		}
		// Slots tile their group, and host and slot addresses agree.
		for _, j := range []uint64{0, 1, 31, 32, 33, 159, 160, groups - 1, maxGroups - 1} {
			at := g.groupAddr(j) + BlockSize
			for s := j * uint64(g.perGroup); s < (j+1)*uint64(g.perGroup); s++ {
				for i := range g.Frames {
					if a := g.slotAddr(s, i); a != at || a != g.hostOffset(g.frameStart(s, i)) {
						t.Fatalf("%v: slot %d of segment %d at %d, want %d", g, i, s, a, at)
					}
					at += int64(g.FrameSize)
				}
			}
		}
	}
}

// TestHostLength checks that host lengths grow strictly with the size and invert, and that lengths no size has are refused.
func TestHostLength(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, g := range geometries {
		sizes := []int64{0, 1, 100, 4095, 4096, 4097, int64(g.SegmentSize), g.groupPlain, g.groupPlain + 1, 32 * g.groupPlain, 32*g.groupPlain + 1,
			160 * g.groupPlain, 160*g.groupPlain + 1, (32 + 1<<14) * g.groupPlain, (32+1<<14)*g.groupPlain + 1, (32 + 1<<21) * g.groupPlain,
			(32+1<<21)*g.groupPlain + 1, g.MaxSize() - 1, g.MaxSize()}
		for range 20000 {
			sizes = append(sizes, rng.Int64N(g.MaxSize())>>rng.IntN(45))
		}
		for _, size := range sizes {
			length := g.HostLength(size)
			back, err := g.PlainSize(length)
			if err != nil || back != size {
				t.Fatalf("seed %d: %v: size %d has length %d, which gives %d, %v", seed, g, size, length, back, err)
			}
			if size > 0 && g.HostLength(size-1) >= length {
				t.Fatalf("%v: length does not grow at size %d", g, size)
			}
		}
		bad := []int64{-1, 0, 1, 4095, 4097, 8191, 8192, g.HostLength(g.MaxSize()) + 1}
		for _, j := range []uint64{1, 31, 32, 160, 32 + 1<<14, 32 + 1<<21, maxGroups - 1} {
			for at := g.HostLength(int64(j)<<g.groupShift) + 1; at <= g.groupAddr(j)+BlockSize; at += 511 {
				bad = append(bad, at)
			}
		}
		for _, length := range bad {
			if size, err := g.PlainSize(length); !errors.Is(err, ErrSize) {
				t.Fatalf("%v: length %d gives %d, %v", g, length, size, err)
			}
		}
	}
}
