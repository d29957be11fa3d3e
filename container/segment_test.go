package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

func segmentCrypto(t testing.TB, r *rig, id keys.ObjectID) *SegmentCrypto {
	k := r.eng.ring.File(id, r.eng.params)
	defer k.Destroy()
	c, err := NewSegmentCrypto(r.eng.ring.VaultID, id, r.eng.params, &k, runtime.GOMAXPROCS(0))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSegmentRoundTrip(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		c := segmentCrypto(t, r, testID(1))
		g := r.eng.Geometry()
		for _, n := range []int{0, 1, g.FrameSize - 1, g.FrameSize, g.FrameSize + 1, g.SegmentSize - 1, g.SegmentSize} {
			plain := random(n)
			sealed, err := c.ProcessEncryptSegment(EncryptSegmentInput{SegmentIndex: 1 << 40, Plaintext: plain}, nil)
			r.must(err)
			frames := (n + g.FrameSize - 1) / g.FrameSize
			if want := (Telemetry{Frames: frames, BytesPlain: int64(n), BytesWire: int64(len(sealed.Wire))}); sealed.Telemetry != want {
				t.Errorf("%d bytes: telemetry %+v, want %+v", n, sealed.Telemetry, want)
			}
			opened, err := c.ProcessDecryptSegment(DecryptSegmentInput{SegmentIndex: 1 << 40, Wire: sealed.Wire}, nil)
			r.must(err)
			if got := bytes.Join(opened.Frames, nil); !bytes.Equal(got, plain) || len(opened.Frames) != frames {
				t.Errorf("%d bytes came back as %d in %d frames", n, len(got), len(opened.Frames))
			}
		}
		if _, err := c.ProcessEncryptSegment(EncryptSegmentInput{Plaintext: make([]byte, g.SegmentSize+1)}, nil); !errors.Is(err, ErrGeometry) {
			t.Errorf("oversized segment: %v", err)
		}
	})
}

// TestSegmentRefusals damages the wire form: each failure has its class, and for frames the lowest one is named.
func TestSegmentRefusals(t *testing.T) {
	r := newRig(t, geometries[0], suite.XAES256GCM, BLAKE3)
	c := segmentCrypto(t, r, testID(1))
	plain := random(3*4096 + 5)
	good, err := c.ProcessEncryptSegment(EncryptSegmentInput{SegmentIndex: 5, Plaintext: plain}, nil)
	r.must(err)
	frame := 4096 + wireOverhead
	other, err := c.ProcessEncryptSegment(EncryptSegmentInput{SegmentIndex: 5, Plaintext: random(3*4096 + 5)}, nil)
	r.must(err)
	stranger := segmentCrypto(t, r, keys.ObjectID{9})
	for _, t2 := range []struct {
		name  string
		want  error
		frame int // −1: no frame is named
		do    func(w []byte) []byte
	}{
		{"empty", ErrTruncated, -1, func(w []byte) []byte { return nil }},
		{"cut_in_header", ErrTruncated, -1, func(w []byte) []byte { return w[:frame+10] }},
		{"cut_in_frame", ErrTruncated, -1, func(w []byte) []byte { return w[:frame+100] }},
		{"cut_before_digest", ErrTruncated, -1, func(w []byte) []byte { return w[:len(w)-wireOverhead-digestPayload] }},
		{"trailing", ErrCorrupt, -1, func(w []byte) []byte { return append(w, 0) }},
		{"flip_in_ciphertext", ErrAuth, 1, func(w []byte) []byte { w[frame+200] ^= 1; w[2*frame+200] ^= 1; return w }},
		{"flip_in_tag", ErrAuth, 0, func(w []byte) []byte { w[frame-1] ^= 1; return w }},
		{"flip_in_nonce", ErrAuth, 2, func(w []byte) []byte { w[2*frame+40] ^= 1; return w }},
		{"generation", ErrAuth, 0, func(w []byte) []byte { w[24] ^= 1; return w }},
		{"huge_length", ErrCorrupt, -1, func(w []byte) []byte { binary.LittleEndian.PutUint32(w[20:], 1<<31); return w }},
		{"swapped", ErrCorrupt, -1, func(w []byte) []byte {
			return append(append(bytes.Clone(w[frame:2*frame]), w[:frame]...), w[2*frame:]...)
		}},
		{"frame_left_out", ErrCorrupt, -1, func(w []byte) []byte { return append(bytes.Clone(w[:frame]), w[2*frame:]...) }},
		{"last_frames_left_out", ErrDigest, -1, func(w []byte) []byte {
			return append(bytes.Clone(w[:2*frame]), w[len(w)-wireOverhead-digestPayload:]...)
		}},
		{"spliced", ErrDigest, -1, func(w []byte) []byte { return append(bytes.Clone(w[:frame]), other.Wire[frame:]...) }},
		{"suite", ErrCorrupt, -1, func(w []byte) []byte { w[7] = 2; return w }},
		{"version", ErrVersion, -1, func(w []byte) []byte { w[4] = 2; return w }},
	} {
		t.Run(t2.name, func(t *testing.T) {
			_, err := c.ProcessDecryptSegment(DecryptSegmentInput{SegmentIndex: 5, Wire: t2.do(bytes.Clone(good.Wire))}, nil)
			var seg *SegmentError
			if !errors.Is(err, t2.want) || !errors.As(err, &seg) || seg.Segment != 5 {
				t.Fatalf("error %v, want %v", err, t2.want)
			}
			var fe *FrameError
			if named := errors.As(err, &fe); named != (t2.frame >= 0) || named && int(fe.Frame) != t2.frame {
				t.Errorf("frame named in %v, want %d", err, t2.frame)
			}
		})
	}
	if _, err := c.ProcessDecryptSegment(DecryptSegmentInput{SegmentIndex: 6, Wire: good.Wire}, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("as another segment: %v", err)
	}
	if _, err := stranger.ProcessDecryptSegment(DecryptSegmentInput{SegmentIndex: 5, Wire: good.Wire}, nil); !errors.Is(err, ErrAuth) {
		t.Errorf("as another object: %v", err)
	}
}

// TestPool checks order of errors, panics, and that nothing outlives a run.
func TestPool(t *testing.T) {
	p := newPool(4)
	before := runtime.NumGoroutine()
	errs := []error{ErrAuth, ErrCorrupt, ErrDigest}
	for range 200 {
		err := p.run(50, func(i int, _ *scratch) error {
			switch i {
			case 17:
				time.Sleep(time.Microsecond)
				return errs[0]
			case 18:
				return errs[1]
			case 49:
				return errs[2]
			}
			return nil
		})
		if err != errs[0] {
			t.Fatalf("error %v is not the lowest one's", err)
		}
	}
	if err := p.run(3, func(i int, _ *scratch) error {
		if i == 1 {
			panic("boom")
		}
		return nil
	}); err == nil || !bytes.Contains([]byte(err.Error()), []byte("boom")) {
		t.Errorf("panic gives %v", err)
	}
	atWork := func() int32 {
		var now, most atomic.Int32
		_ = p.run(50, func(int, *scratch) error {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Millisecond)
			now.Add(-1)
			return nil
		})
		return most.Load()
	}
	if n := atWork(); n != 4 {
		t.Errorf("%d at work, want 4", n)
	}
	for range 4 {
		p.join()
	}
	if n := atWork(); n != 1 {
		t.Errorf("%d at work where all workers are busy, want 1", n)
	}
	for range 4 {
		p.leave()
	}
	if len(p.workers) != 0 {
		t.Errorf("%d tokens left", len(p.workers))
	}
	until(t, "end of its goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func FuzzSegmentWire(f *testing.F) {
	r := newRig(f, geometries[0], suite.XAES256GCM, BLAKE3)
	c := segmentCrypto(f, r, testID(1))
	for _, n := range []int{0, 5, 4096, 5000} {
		s, err := c.ProcessEncryptSegment(EncryptSegmentInput{SegmentIndex: 5, Plaintext: random(n)}, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.Wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		frames, err := c.parseWire(DecryptSegmentInput{SegmentIndex: 5, Wire: wire})
		if err != nil {
			if !refused(err) {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		var again []byte
		for _, w := range frames {
			var h [frameHeaderSize]byte
			w.header.put(h[:])
			again = append(append(again, h[:]...), w.sealed...)
		}
		if !bytes.Equal(again, wire) {
			t.Fatal("what parses does not encode to the same bytes")
		}
	})
}

func FuzzHeader(f *testing.F) {
	r := newRig(f, geometries[8], suite.XAES256GCM, BLAKE3)
	k := r.ring.File(testID(1), r.eng.params)
	for _, kind := range []uint8{bodyNone, bodyTree} {
		h := header{suite: suite.XAES256GCM, digest: BLAKE3, geo: geometries[8], vault: r.ring.VaultID, id: testID(1), commitment: k.Commitment, sequence: 1, kind: kind, object: ObjectFile, size: 12345}
		var b block
		h.seal(&b, newMAC(&k.Auth))
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) != BlockSize {
			return
		}
		b := block(raw)
		// An attacker can make any CRC; only one with the key can make an HMAC. Both are given, to reach what lies behind.
		binary.LittleEndian.PutUint32(b[8:], 0)
		headerMAC(b[macOffset:macOffset], &b, newMAC(&k.Auth))
		binary.LittleEndian.PutUint32(b[8:], crcExcept(b[:], 8))
		var h header
		if h.parse(&b) != nil || h.verify(&b, r.ring.VaultID, testID(1), &k) != nil {
			return
		}
		if h.readOnly || binary.LittleEndian.Uint32(b[156:]) == 0 && !allZero(b[144:172]) {
			return // features and unset times are not written back
		}
		var again block
		h.seal(&again, newMAC(&k.Auth))
		if again != b {
			t.Fatalf("what parses does not encode to the same bytes; first at %d", firstDiff(again[:], b[:]))
		}
	})
}

func BenchmarkFile(b *testing.B) {
	for _, g := range []*Geometry{geometries[8], geometries[2], geometries[4]} {
		for _, n := range []int{4 << 10, 1 << 20} {
			r := newRig(b, g, suite.XAES256GCM, DefaultDigest)
			r.eng.meta.Resize(1024)
			f, _ := r.create()
			data := random(16 << 20)
			r.must(write(f, data, 0))
			r.must(f.Flush())
			p := make([]byte, n)
			name := g.String() + "/" + sizeName(n)
			b.Run("read/"+name, func(b *testing.B) {
				b.SetBytes(int64(n))
				b.ReportAllocs()
				off := int64(0)
				for b.Loop() {
					if err := f.ReadAt(p, off); err != nil {
						b.Fatal(err)
					}
					off = (off + int64(n)) % int64(len(data))
				}
			})
			if n < g.FrameSize {
				continue
			}
			ws := segments(g, data[:n])
			b.Run("overwrite/"+name, func(b *testing.B) {
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if err := f.WriteFrames(0, ws); err != nil {
						b.Fatal(err)
					}
				}
			})
			r.must(f.Close())
		}
	}
}

// segments cuts whole frames into segment writes that begin at segment 0.
func segments(g *Geometry, p []byte) (ws []SegmentWrite) {
	for at := 0; at < len(p); at += g.FrameSize {
		s := g.segmentOf(int64(at))
		if n := len(ws); n == 0 || ws[n-1].Segment != s {
			ws = append(ws, SegmentWrite{Segment: s, Frames: make([][]byte, g.Frames)})
		}
		w := &ws[len(ws)-1]
		w.Frames[g.frameOf(int64(at))] = p[at : at+g.FrameSize]
		w.Dirty |= 1 << g.frameOf(int64(at))
	}
	return ws
}
