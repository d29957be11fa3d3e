package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// subject is a file of one body kind, with what it holds.
type subject struct {
	name string
	data []byte
}

// subjects are files of all body kinds: none, inline, single, and a tree with nodes, holes and a short end.
func subjects(r *rig) []subject {
	g := r.eng.Geometry()
	make := func(data []byte) subject {
		f, name := r.create()
		if !allZero(data) {
			r.must(write(f, data, 0))
		}
		r.must(f.SetSize(int64(len(data))))
		r.must(f.Flush())
		r.must(f.Close())
		return subject{name, data}
	}
	out := []subject{make(nil), make(bytes.Repeat([]byte{0}, 5000)), make(random(700)), make(random(2*g.FrameSize + 9)), make(random(3*g.SegmentSize + 1))}
	name, data := victim(r)
	return append(out, subject{name, data})
}

// lostFrames has the plain offset of each frame that cannot be read, as a mount would see it: the oracle of verify. A file that does not open has lost all.
func (r *rig) lostFrames(name string, size int) map[int64]bool {
	lost := map[int64]bool{}
	f, err := r.openLoose(name)
	for off := int64(0); off < int64(size); off += int64(r.eng.Geometry().FrameSize) {
		p := make([]byte, min(int64(r.eng.Geometry().FrameSize), int64(size)-off))
		if err != nil || f.ReadAt(p, off) != nil {
			lost[off] = true
		}
	}
	if err == nil {
		f.Close()
	}
	return lost
}

// openLoose opens whatever its length.
func (r *rig) openLoose(name string) (*File, error) {
	h, err := r.dir.Open(name, disk.ReadOnly)
	r.must(err)
	var n int
	fmt.Sscanf(name, "f%d", &n)
	return r.eng.Open(h, testID(n), OpenOptions{ReadOnly: true})
}

func framesOf(lost []LostRange, frame int) map[int64]bool {
	m := map[int64]bool{}
	for _, l := range lost {
		for off := l.From &^ int64(frame-1); off < l.To; off += int64(frame) {
			m[off] = true
		}
	}
	return m
}

func same(a, b map[int64]bool) bool {
	for k := range a {
		if !b[k] {
			return false
		}
	}
	return len(a) == len(b)
}

// harm changes a host file at random, and says how.
func harm(rng *mrand.Rand, b []byte) (string, []byte) {
	b = bytes.Clone(b)
	at := rng.IntN(len(b))
	if rng.IntN(3) == 0 {
		at = rng.IntN(min(len(b), 3*BlockSize))
	}
	switch rng.IntN(5) {
	case 0:
		n := min(len(b)-at, 1+rng.IntN(9000))
		for i := range n {
			b[at+i] ^= 0x5a
		}
		return fmt.Sprintf("changed %d bytes at %d", n, at), b
	case 1:
		from := at &^ (BlockSize - 1)
		n := min(len(b)-from, BlockSize*(1+rng.IntN(3)))
		clear(b[from : from+n])
		return fmt.Sprintf("zeroed %d bytes at %d", n, from), b
	case 2:
		return fmt.Sprintf("cut to %d bytes", at), b[:at]
	case 3:
		from, to := at&^(BlockSize-1), rng.IntN(len(b))&^(BlockSize-1)
		x, y := b[from:min(len(b), from+BlockSize)], b[to:min(len(b), to+BlockSize)]
		old := bytes.Clone(x)
		copy(x, y)
		copy(y, old)
		return fmt.Sprintf("swapped blocks at %d and %d", from, to), b
	}
	b[at] ^= 1 << rng.IntN(8)
	return fmt.Sprintf("flipped a bit at %d", at), b
}

// TestVerifyFindsWhatReadsRefuse: the lost ranges are exactly the frames that a reader cannot have, whatever was done to the host file; and what a
// reader without the key finds is no more than that.
func TestVerifyFindsWhatReadsRefuse(t *testing.T) {
	for _, d := range []DigestAlg{CRC32C, BLAKE3, NoDigest} {
		r := newRig(t, geometries[0], suite.XAES256GCM, d)
		scrub := NewScrubber(0)
		frame := r.eng.Geometry().FrameSize
		seed := uint64(os.Getpid())
		rng := mrand.New(mrand.NewPCG(seed, uint64(d)))
		for _, s := range subjects(r) {
			path := filepath.Join(r.path, s.name)
			good, err := os.ReadFile(path)
			r.must(err)
			for round := range 60 {
				how, bad := "nothing", good
				if round > 0 {
					how, bad = harm(rng, good)
				}
				r.must(os.WriteFile(path, bad, 0o600))
				want := r.lostFrames(s.name, len(s.data))
				where := fmt.Sprintf("seed %d, %v, %d bytes, %s", seed, d, len(s.data), how)

				h, err := r.dir.Open(s.name, disk.ReadOnly)
				r.must(err)
				sc, serr := scrub.Scrub(context.Background(), h, nil)
				h.Close()
				f, err := r.openLoose(s.name)
				if err != nil {
					if d != NoDigest && how[:7] != "swapped" && serr == nil {
						t.Errorf("%s: verify says %v, scrub nothing", where, err)
					}
					continue
				}
				steps := int64(0)
				c, err := f.Verify(context.Background(), nil, func(n int64) { steps += n })
				r.must(err)
				if again, err := f.Verify(context.Background(), c.Lost, nil); err != nil || len(c.Lost) > 0 && !same(framesOf(again.Lost, frame), framesOf(c.Lost, frame)) {
					t.Fatalf("%s: looking at what is lost alone finds %v, %v", where, again.Lost, err)
				}
				r.must(f.Close())
				if got := framesOf(c.Lost, frame); !same(got, want) {
					t.Fatalf("%s: %d frames lost, reads say %d: %v", where, len(got), len(want), c.Lost)
				}
				if (c.Length != nil) != (len(bad) != len(good)) {
					t.Errorf("%s: length: %v", where, c.Length)
				}
				if serr != nil {
					t.Fatalf("%s: scrub: %v", where, serr)
				}
				if round == 0 && (!c.Good() || !sc.Good() || c.Frames == 0 && !allZero(s.data) || sc.ID != f.ID()) {
					t.Errorf("%s: %+v, %+v", where, c, sc)
				}
				found := framesOf(sc.Lost, frame)
				for off := range found {
					if !want[off] {
						t.Errorf("%s: scrub names the frame at %d, which can be read", where, off)
					}
				}
				if d != NoDigest && how[:7] != "swapped" && len(found) != len(want) {
					t.Errorf("%s: scrub finds %d frames, verify %d", where, len(found), len(want))
				}
			}
		}
	}
}

// TestVerifyReadErrors: sectors that the host cannot read cost the frames in them and no others.
func TestVerifyReadErrors(t *testing.T) {
	r := newRig(t, geometries[8], suite.XAES256GCM, CRC32C)
	g := r.eng.Geometry()
	f, name := r.create()
	data := random(int(g.groupPlain) * 2)
	r.must(write(f, data, 0))
	r.must(f.Flush())
	r.must(f.Close())
	h, err := r.dir.Open(name, disk.ReadOnly)
	r.must(err)
	bad := g.slotAddr(1, 3)
	f, err = r.eng.Open(&badSector{h, bad}, testID(r.n), OpenOptions{ReadOnly: true})
	r.must(err)
	c, err := f.Verify(context.Background(), nil, nil)
	r.must(err)
	want := g.frameStart(1, 3)
	if len(c.Lost) != 1 || c.Lost[0].From != want || c.Lost[0].To != want+int64(g.FrameSize) || !errors.Is(c.Lost[0].Err, os.ErrInvalid) {
		t.Errorf("lost: %v, want the frame at %d", c.Lost, want)
	}
	if c.LostBytes() != int64(g.FrameSize) || c.Bytes != int64(len(data)-g.FrameSize) {
		t.Errorf("%d bytes lost, %d good", c.LostBytes(), c.Bytes)
	}
	r.must(f.Close())
	if _, err := f.Verify(context.Background(), nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// badSector fails every read that touches one byte.
type badSector struct {
	disk.File
	at int64
}

func (b *badSector) ReadAt(p []byte, off int64) (int, error) {
	if off <= b.at && b.at < off+int64(len(p)) {
		return 0, os.ErrInvalid
	}
	return b.File.ReadAt(p, off)
}

// TestVerifyStops when it is asked to.
func TestVerifyStops(t *testing.T) {
	r := newRig(t, geometries[0], suite.XAES256GCM, CRC32C)
	name, _ := victim(r)
	f, err := r.openLoose(name)
	r.must(err)
	defer f.Close()
	ctx, stop := context.WithCancel(context.Background())
	if _, err := f.Verify(ctx, nil, func(int64) { stop() }); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

// TestLargest inverts HostLength, also where no size has that length.
func TestLargest(t *testing.T) {
	for _, g := range geometries {
		for _, size := range []int64{0, 1, 4095, 4096, 4097, g.groupPlain - 1, g.groupPlain, g.groupPlain + 1, 33 * g.groupPlain, g.MaxSize() - 1, g.MaxSize()} {
			n := g.HostLength(size)
			if got := g.largest(n); got != size {
				t.Errorf("%v: %d for the length of %d", g, got, size)
			}
			if got := g.largest(n - 1); got > size || size > 0 && got != size-1 {
				t.Errorf("%v: %d for a byte less than the length of %d", g, got, size)
			}
			if got := g.largest(n + 100); got < size || g.HostLength(got) > n+100 {
				t.Errorf("%v: %d for 100 bytes more than the length of %d", g, got, size)
			}
		}
		if g.largest(0) != 0 || g.largest(100) != 0 {
			t.Errorf("%v: a file that is shorter than its header has data", g)
		}
	}
}
