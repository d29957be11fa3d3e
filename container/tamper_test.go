package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// refused reports whether an error is one of the classes that tampering may show as.
func refused(err error) bool {
	for _, class := range []error{ErrAuth, ErrCorrupt, ErrTruncated, ErrNoHeader, ErrKey, ErrIdentity, ErrVersion, ErrFeature, ErrSize, ErrGeometry} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// victim is a file with every kind of structure: groups pinned by the header, one below a tree node, a hole, a short last frame.
func victim(r *rig) (name string, data []byte) {
	g := r.eng.Geometry()
	f, name := r.create()
	data = random(int(33*g.groupPlain) + g.FrameSize + 77)
	clear(data[g.groupPlain : 2*g.groupPlain])
	for off := 0; off < len(data); off += 1 << 20 {
		if int64(off) == g.groupPlain {
			continue
		}
		r.must(write(f, data[off:min(off+1<<20, len(data))], int64(off)))
	}
	r.must(f.Discard(g.groupPlain, g.groupPlain))
	r.must(f.Flush())
	r.must(f.Close())
	return name, data
}

// readable opens a file and reads it frame by frame: every frame must be right or refused. It returns how many were refused, or the error of the open.
func (r *rig) readable(name string, data []byte) (bad int, err error) {
	r.t.Helper()
	f, err := r.open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	F := f.Geometry().FrameSize
	p := make([]byte, F)
	for off := 0; off < len(data); off += F {
		n := min(F, len(data)-off)
		if err := f.ReadAt(p[:n], int64(off)); err != nil {
			if !refused(err) {
				r.t.Fatalf("frame at %d: unexpected error %v", off, err)
			}
			bad++
			continue
		}
		if !bytes.Equal(p[:n], data[off:off+n]) {
			r.t.Fatalf("frame at %d: wrong bytes without an error", off)
		}
	}
	return bad, nil
}

// TestTamperFlip flips one bit at a time: in every field of header, record, node and frame. What depends on the bit is refused, everything else
// still reads.
func TestTamperFlip(t *testing.T) {
	r := newRig(t, geometries[0], suite.XAES256GCM, BLAKE3)
	g := r.eng.Geometry()
	name, data := victim(r)
	path := filepath.Join(r.path, name)
	good, err := os.ReadFile(path)
	r.must(err)
	perGroup := int(g.groupPlain) / g.FrameSize

	header := []int{0, 7, 8, 11, 12, 13, 14, 15, 16, 19, 20, 24, 28, 32, 36, 40, 55, 56, 71, 72, 103, 104, 112, 119, 120, 128, 144, 152, 156, 160, 168, 172, 173, 174, 300, 511,
		512, 527, 528, 1023, 1024, 1039, 1040, 3071, 3072, 4063, 4064, 4095}
	flip := func(at int) {
		t.Helper()
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		r.must(os.WriteFile(path, bad, 0o600))
	}
	for _, at := range header {
		flip(at)
		if _, err := r.readable(name, data); err == nil || !refused(err) {
			t.Errorf("header byte %d flipped: open gives %v", at, err)
		}
	}
	block := func(what string, addr int64, offsets []int, lost int) {
		t.Helper()
		for _, at := range offsets {
			flip(int(addr) + at)
			bad, err := r.readable(name, data)
			if err != nil || bad != lost {
				t.Errorf("%s byte %d flipped: %d frames refused, want %d; %v", what, at, bad, lost, err)
			}
		}
	}
	fields := []int{0, 4, 8, 16, 24, 39, 40, 48, 79, 80, 127, 128, 131, 132, 136, 159, 160, 175, 176, 183, 184, 400, 511, 512, 4095}
	block("meta block 0", g.groupAddr(0), fields, perGroup)
	block("meta block 32", g.groupAddr(32), fields, perGroup)
	last := (len(data) - 33*int(g.groupPlain) + g.FrameSize - 1) / g.FrameSize
	nodes := []int{0, 4, 8, 16, 24, 32, 48, 63, 64, 79, 80, 2111, 2112, 4095}
	for level := uint8(1); level <= treeLevels; level++ {
		block(fmt.Sprintf("node of level %d", level), g.nodeAddr(level, 0), nodes, perGroup+last)
	}
	block("frame", g.slotAddr(3, 1), []int{0, 1, 2048, 4095}, 1)
	block("last frame", g.hostOffset(int64(len(data)-1)), []int{0}, 1)
	// Nothing refers to the slots of a hole.
	r.must(os.WriteFile(path, good, 0o600))
	h, err := os.OpenFile(path, os.O_RDWR, 0)
	r.must(err)
	_, err = h.WriteAt([]byte("noise"), g.hostOffset(g.groupPlain))
	r.must(err)
	h.Close()
	if bad, err := r.readable(name, data); bad != 0 || err != nil {
		t.Errorf("noise in a hole: %d frames refused, %v", bad, err)
	}
}

// TestTamperWhole zeroes, cuts, extends, swaps, moves and rolls back structures.
func TestTamperWhole(t *testing.T) {
	r := newRig(t, geometries[8], suite.XAES256GCM, BLAKE3)
	g := r.eng.Geometry()
	name, data := victim(r)
	other, _ := victim(r)
	path := filepath.Join(r.path, name)
	old, err := os.ReadFile(path)
	r.must(err)
	foreign, err := os.ReadFile(filepath.Join(r.path, other))
	r.must(err)
	// A newer state, of which old parts can be put back.
	f, err := r.open(name)
	r.must(err)
	copy(data[5*g.FrameSize:], random(g.FrameSize))
	r.must(write(f, data[5*g.FrameSize:6*g.FrameSize], int64(5*g.FrameSize)))
	far := int(32*g.groupPlain) + 3*g.FrameSize
	copy(data[far:], random(g.FrameSize))
	r.must(write(f, data[far:far+g.FrameSize], int64(far)))
	r.must(f.Flush())
	r.must(f.Close())
	good, err := os.ReadFile(path)
	r.must(err)

	B, F := BlockSize, g.FrameSize
	put := func(dst []byte, at int64, src []byte) { copy(dst[at:], src) }
	swap := func(b []byte, x, y int64, n int) {
		tmp := bytes.Clone(b[x : x+int64(n)])
		copy(b[x:], b[y:y+int64(n)])
		copy(b[y:], tmp)
	}
	perGroup := int(g.groupPlain) / F
	s0, s1 := g.slotAddr(0, 0), g.slotAddr(0, 1)
	for _, c := range []struct {
		name string
		do   func(b []byte) []byte
		open bool // the open is refused
		lost int  // frames refused otherwise
	}{
		{"frame_zeroed", func(b []byte) []byte { clear(b[s0 : s0+int64(F)]); return b }, false, 1},
		{"frames_swapped", func(b []byte) []byte { swap(b, s0, s1, F); return b }, false, 2},
		{"frame_of_another_file", func(b []byte) []byte { put(b, s0, foreign[s0:s0+int64(F)]); return b }, false, 1},
		{"frame_rolled_back", func(b []byte) []byte {
			at := g.slotAddr(0, 5)
			put(b, at, old[at:at+int64(F)])
			return b
		}, false, 1},
		{"meta_block_rolled_back", func(b []byte) []byte { put(b, g.groupAddr(0), old[g.groupAddr(0):][:B]); return b }, false, perGroup},
		{"frame_and_meta_block_rolled_back", func(b []byte) []byte {
			put(b, g.groupAddr(0), old[g.groupAddr(0):][:B+int(g.groupPlain)])
			return b
		}, false, perGroup},
		{"meta_block_and_node_rolled_back", func(b []byte) []byte {
			put(b, g.nodeAddr(3, 0), old[g.nodeAddr(3, 0):][:3*B+B+int(g.groupPlain)])
			return b
		}, false, perGroup + 2},
		{"meta_blocks_swapped", func(b []byte) []byte { swap(b, g.groupAddr(0), g.groupAddr(2), B); return b }, false, 2 * perGroup},
		{"meta_block_zeroed", func(b []byte) []byte { clear(b[g.groupAddr(3) : g.groupAddr(3)+int64(B)]); return b }, false, perGroup},
		{"groups_swapped", func(b []byte) []byte { swap(b, g.groupAddr(4), g.groupAddr(5), int(g.stride)); return b }, false, 2 * perGroup},
		{"meta_block_of_another_file", func(b []byte) []byte { put(b, g.groupAddr(0), foreign[g.groupAddr(0):][:B]); return b }, false, perGroup},
		{"node_zeroed", func(b []byte) []byte { clear(b[g.nodeAddr(1, 0) : g.nodeAddr(1, 0)+int64(B)]); return b }, false, perGroup + 2},
		{"header_rolled_back", func(b []byte) []byte { put(b, 0, old[:B]); return b }, false, 2*perGroup + 2},
		{"header_of_another_file", func(b []byte) []byte { put(b, 0, foreign[:B]); return b }, true, 0},
		{"header_zeroed", func(b []byte) []byte { clear(b[:B]); return b }, true, 0},
		{"whole_other_file", func(b []byte) []byte { return bytes.Clone(foreign) }, true, 0},
		{"empty", func([]byte) []byte { return nil }, true, 0},
		{"header_cut", func(b []byte) []byte { return b[:B-1] }, true, 0},
		{"cut_by_a_byte", func(b []byte) []byte { return b[:len(b)-1] }, true, 0},
		{"cut_by_a_group", func(b []byte) []byte { return b[:len(b)-int(g.stride)] }, true, 0},
		{"extended", func(b []byte) []byte { return append(b, 0) }, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.must(os.WriteFile(path, c.do(bytes.Clone(good)), 0o600))
			bad, err := r.readable(name, data)
			if c.open != (err != nil) || bad != c.lost {
				t.Errorf("%d frames refused, want %d; open gives %v", bad, c.lost, err)
			}
			if err != nil && !refused(err) {
				t.Errorf("error without a class: %v", err)
			}
		})
	}
}

// TestTamperSmall covers the two bodies that live in the header.
func TestTamperSmall(t *testing.T) {
	for _, size := range []int{1, 700, inlineMax, inlineMax + 1, 4096, 60000} {
		r := newRig(t, geometries[8], suite.XChaCha20Poly1305, SHA256)
		f, name := r.create()
		data := random(size)
		r.must(write(f, data, 0))
		r.must(f.Flush())
		r.must(f.Close())
		path := filepath.Join(r.path, name)
		good, err := os.ReadFile(path)
		r.must(err)
		for _, at := range []int{512, 516, 520, 544, 560, 567, 568, 569, 1535, 1536, 2000, 4063} {
			bad := bytes.Clone(good)
			bad[at] ^= 1
			r.must(os.WriteFile(path, bad, 0o600))
			if _, err := r.readable(name, data); err == nil {
				t.Errorf("size %d, body byte %d flipped: no error", size, at)
			}
		}
		r.must(os.WriteFile(path, good, 0o600))
		if bad, err := r.readable(name, data); bad != 0 || err != nil {
			t.Errorf("size %d untouched: %d refused, %v", size, bad, err)
		}
	}
}

// TestEmptied: a damaged container opens for who truncates it to nothing, as an empty one, and holds what is written then. One that is only newer, or that the
// host could not read, is not replaced.
func TestEmptied(t *testing.T) {
	r := newRig(t, geometries[8], suite.XAES256GCM, DefaultDigest)
	name, data := victim(r)
	other, _ := victim(r)
	path := filepath.Join(r.path, name)
	good, err := os.ReadFile(path)
	r.must(err)
	foreign, err := os.ReadFile(filepath.Join(r.path, other))
	r.must(err)
	emptied := OpenOptions{Emptied: true, TrustLength: true}
	open := func(opt OpenOptions) (*File, error) {
		h, err := r.dir.Open(name, disk.ReadWrite)
		r.must(err)
		return r.eng.Open(h, testID(1), opt)
	}
	crc := bytes.Clone(good)
	crc[8] ^= 1
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"empty", nil}, {"zeros", make([]byte, 100_000)}, {"cut in the header", good[:100]}, {"cut", good[:len(good)/2]}, {"extended", append(bytes.Clone(good), 0)},
		{"another file", foreign}, {"HMAC", forge(good, 1000)}, {"CRC", crc},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.must(os.WriteFile(path, c.b, 0o600))
			if _, err := open(OpenOptions{TrustLength: true}); !refused(err) {
				t.Fatalf("opens: %v", err)
			}
			if _, err := open(OpenOptions{Emptied: true, TrustLength: true, ReadOnly: true}); !refused(err) {
				t.Errorf("opens for reading only: %v", err)
			}
			f, err := open(emptied)
			r.must(err)
			if f.Size() != 0 || !f.Dirty() {
				t.Errorf("size %d, dirty %v", f.Size(), f.Dirty())
			}
			r.must(write(f, data[:9000], 0))
			r.must(f.Flush())
			r.must(f.Close())
			if bad, err := r.readable(name, data[:9000]); bad != 0 || err != nil {
				t.Errorf("%d frames refused, %v", bad, err)
			}
		})
	}
	// What is whole stays as it is.
	r.must(os.WriteFile(path, good, 0o600))
	f, err := open(emptied)
	r.must(err)
	if f.Size() != int64(len(data)) || f.Dirty() {
		t.Errorf("a good container of %d bytes has %d", len(data), f.Size())
	}
	r.must(f.Close())
	for what, at := range map[string]int{"version": 12, "feature": 24} {
		r.must(os.WriteFile(path, forge(good, at), 0o600))
		if _, err := open(emptied); !errors.Is(err, ErrVersion) && !errors.Is(err, ErrFeature) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// forge flips a bit of the header and makes the CRC right.
func forge(good []byte, at int) []byte {
	raw := bytes.Clone(good)
	b := block(raw[:BlockSize])
	b[at] ^= 2
	binary.LittleEndian.PutUint32(b[8:], crcExcept(b[:], 8))
	copy(raw, b[:])
	return raw
}

// TestForgedHeader changes header fields and repairs CRC and, where an attacker could, nothing else.
func TestForgedHeader(t *testing.T) {
	r := newRig(t, geometries[8], suite.XAES256GCM, BLAKE3)
	f, name := r.create()
	data := random(10000)
	r.must(write(f, data, 0))
	r.must(f.Flush())
	r.must(f.Close())
	path := filepath.Join(r.path, name)
	good, err := os.ReadFile(path)
	r.must(err)
	for _, c := range []struct {
		name string
		want error
		do   func(b []byte)
	}{
		{"suite_downgraded", ErrKey, func(b []byte) { b[14] = 2 }},
		{"suite_unknown", ErrFeature, func(b []byte) { b[14] = 9 }},
		{"digest_changed", ErrKey, func(b []byte) { b[15] = 3 }},
		{"digest_unknown", ErrFeature, func(b []byte) { b[15] = 0 }},
		{"geometry_changed", ErrKey, func(b []byte) { binary.LittleEndian.PutUint32(b[20:], 16<<10) }},
		{"geometry_unknown", ErrGeometry, func(b []byte) { binary.LittleEndian.PutUint32(b[20:], 12345) }},
		{"geometry_huge", ErrFeature, func(b []byte) { binary.LittleEndian.PutUint32(b[16:], 1<<31) }},
		{"version_2", ErrVersion, func(b []byte) { b[12] = 2 }},
		{"incompat_feature", ErrFeature, func(b []byte) { b[24] = 1 }},
		{"vault_id", ErrKey, func(b []byte) { b[40] ^= 1 }},
		{"file_id", ErrKey, func(b []byte) { b[56] ^= 1 }},
		{"commitment", ErrKey, func(b []byte) { b[72] ^= 1 }},
		{"epoch", ErrKey, func(b []byte) { b[36] = 1 }},
		{"size", ErrAuth, func(b []byte) { binary.LittleEndian.PutUint64(b[112:], 20000) }},
		{"size_negative", ErrAuth, func(b []byte) { binary.LittleEndian.PutUint64(b[112:], 1<<63) }},
		{"body_kind", ErrAuth, func(b []byte) { b[172] = 0 }},
		{"object_type", ErrAuth, func(b []byte) { b[173] = 3 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bytes.Clone(good)
			c.do(b)
			binary.LittleEndian.PutUint32(b[8:], crcExcept(b[:BlockSize], 8))
			r.must(os.WriteFile(path, b, 0o600))
			if _, err := r.open(name); !errors.Is(err, c.want) {
				t.Errorf("open gives %v, want %v", err, c.want)
			}
		})
	}
	r.must(os.WriteFile(path, good, 0o600))
	h, err := r.dir.Open(name, disk.ReadWrite)
	r.must(err)
	if _, err := r.eng.Open(h, keys.ObjectID{1}, OpenOptions{TrustLength: true}); !errors.Is(err, ErrIdentity) {
		t.Errorf("under another id: %v", err)
	}
}

// TestErrors checks that the classes, the position and the host's errno survive to the top.
func TestErrors(t *testing.T) {
	r := newRig(t, geometries[8], suite.XAES256GCM, BLAKE3)
	g := r.eng.Geometry()
	f, name := r.create()
	r.must(write(f, random(10*g.SegmentSize), 0))
	r.must(f.Flush())
	path := filepath.Join(r.path, name)
	h, err := os.OpenFile(path, os.O_RDWR, 0)
	r.must(err)
	for _, bad := range []struct {
		s uint64
		i int
	}{{7, 3}, {2, 5}, {2, 4}, {9, 0}} {
		_, err = h.WriteAt([]byte{1, 2, 3, 4}, g.slotAddr(bad.s, bad.i)+10)
		r.must(err)
	}
	err = f.ReadAt(make([]byte, 10*g.SegmentSize), 0)
	var seg *SegmentError
	var frame *FrameError
	if !errors.As(err, &seg) || !errors.As(err, &frame) || !errors.Is(err, ErrAuth) {
		t.Fatalf("error %v", err)
	}
	if seg.Segment != 2 || frame.Segment != 2 || frame.Frame != 4 || frame.Offset != g.frameStart(2, 4) {
		t.Errorf("%v is not the lowest failing frame", err)
	}
	h.Close()
	r.must(f.Close())
	if err := f.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("read of a closed file succeeds")
	}
	if err := f.Flush(); !errors.Is(err, ErrClosed) {
		t.Errorf("flush of a closed file: %v", err)
	}

	full := &failing{File: nil, err: &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}}
	f2, name2 := r.create()
	full.File = f2.host
	f2.host = full
	if err := write(f2, random(2*g.SegmentSize), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write on a full host: %v", err)
	}
	full.err = nil
	r.must(write(f2, random(2*g.SegmentSize), 0))
	r.must(f2.Flush())
	r.must(f2.Close())
	f2, err = r.open(name2)
	r.must(err)
	r.must(f2.Close())
}
