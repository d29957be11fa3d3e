package redo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/vectors"
)

var update = flag.Bool("update", false, "write the test vectors of this package")

const vectorDir = "testdata/vectors"

var expectations = map[string]error{"success": nil, "malformed": ErrMalformed, "unknown kind": ErrKind}

// raw builds a head per byte of FORMAT.md, without the code under test.
type raw struct {
	kind, flags                  byte
	freed, nsec                  int
	id                           byte
	length, sec                  int64
	made                         []uint32 // mode, owner, group, 0
	path                         []string
	ranges                       []int64 // offset, length, …
	tail                         []byte
	countNames, countF, countImg int // added to the counts
}

func (r raw) bytes() []byte {
	le := binary.LittleEndian
	b := []byte{r.kind, r.flags}
	b = le.AppendUint16(b, uint16(len(r.path)+r.countNames))
	b = le.AppendUint32(b, uint32(r.freed+r.countF))
	b = le.AppendUint32(b, uint32(len(r.ranges)/2-r.freed+r.countImg))
	b = le.AppendUint32(b, uint32(r.nsec))
	b = append(b, bytes.Repeat([]byte{r.id}, 16)...)
	b = le.AppendUint64(b, uint64(r.length))
	b = le.AppendUint64(b, uint64(r.sec))
	for _, x := range r.made {
		b = le.AppendUint32(b, x)
	}
	for _, n := range r.path {
		b = append(append(b, byte(len(n))), n...)
	}
	for _, x := range r.ranges {
		b = le.AppendUint64(b, uint64(x))
	}
	return append(b, r.tail...)
}

// headVectors builds the vectors of file heads.
func headVectors() map[string]*vectors.Vector {
	all := map[string]*vectors.Vector{}
	add := func(name, expect, comment string, b []byte) *vectors.Vector {
		v := new(vectors.Vector).Set("expect", expect).Set("comment", comment).SetHex("head", b)
		all["head_"+name] = v
		return v
	}
	good := func(name, comment string, r raw, h Head) {
		v := add(name, "success", comment, r.bytes())
		v.SetHex("id", h.ID[:]).Set("path", strings.Join(h.Path, "/")).Set("length", fmt.Sprint(h.Length))
		if h.Timed {
			v.Set("mtime", fmt.Sprintf("%d %d", h.Mtime.Sec, h.Mtime.Nsec))
		}
		v.Set("freed", fmt.Sprint(h.Freed)).Set("images", fmt.Sprint(h.Images)).SetUint("bulk", uint64(h.bulkLen()))
		if len(h.Patches) > 0 {
			v.Set("patches", fmt.Sprint(h.Patches))
		}
		if h.Made != nil {
			v.Set("made", fmt.Sprintf("%o %d %d", h.Made.Mode, h.Made.UID, h.Made.GID))
		}
	}
	id := keys.ObjectID(bytes.Repeat([]byte{0xa1}, 16))
	full := raw{kind: 1, flags: 1, id: 0xa1, length: 274433, sec: -5, nsec: 999999999, path: []string{"dir", "file"}, freed: 1,
		ranges: []int64{8192, 4096, 0, 4096, 12288, 8192, 274432, 1}}
	good("full", "every field", full, Head{ID: id, Path: []string{"dir", "file"}, Length: 274433, Timed: true, Mtime: unix.Timespec{Sec: -5, Nsec: 999999999},
		Freed: []Range{{8192, 4096}}, Images: []Range{{0, 4096}, {12288, 8192}, {274432, 1}}})
	good("time_only", "sets the mtime only", raw{kind: 1, flags: 1, id: 0xa1, length: -1, sec: 1 << 40}, Head{ID: id, Length: -1, Timed: true, Mtime: unix.Timespec{Sec: 1 << 40}})
	good("empty_file", "length 0, no path, no image", raw{kind: 1, id: 0xa1}, Head{ID: id})
	good("freed_not_sorted", "freed ranges have no order", raw{kind: 1, id: 0xa1, freed: 2, ranges: []int64{8192, 4096, 0, 8192}},
		Head{ID: id, Freed: []Range{{8192, 4096}, {0, 8192}}})
	good("long_names", "names of 255 bytes", raw{kind: 1, id: 0xa1, path: []string{strings.Repeat("n", 255), strings.Repeat("m", 255)}},
		Head{ID: id, Path: []string{strings.Repeat("n", 255), strings.Repeat("m", 255)}})
	patches := raw{kind: 1, flags: 3, id: 0xa1, length: -1, sec: 1, freed: 1, countImg: -2, ranges: []int64{8192, 4096, 4096, 4096, 1, 20, 11776, 512}}
	good("patches", "a freed range, an image, two patches", patches, Head{ID: id, Length: -1, Timed: true, Mtime: unix.Timespec{Sec: 1},
		Freed: []Range{{8192, 4096}}, Images: []Range{{4096, 4096}}, Patches: []Range{{1, 20}, {11776, 512}}})

	makes := raw{kind: 3, flags: 1, id: 0xa1, length: 8193, sec: 7, made: []uint32{0o6640, 1000, 1<<32 - 1, 0}, path: []string{"dir", "file"}, ranges: []int64{0, 4096, 8192, 1}}
	good("made", "all of a new file", makes, Head{ID: id, Path: []string{"dir", "file"}, Length: 8193, Timed: true, Mtime: unix.Timespec{Sec: 7},
		Images: []Range{{0, 4096}, {8192, 1}}, Made: &Made{Mode: 0o6640, UID: 1000, GID: 1<<32 - 1}})

	bad := func(name, comment string, change func(r *raw)) {
		r := full
		r.path, r.ranges = append([]string(nil), full.path...), append([]int64(nil), full.ranges...)
		change(&r)
		add(name, "malformed", comment, r.bytes())
	}
	add("empty", "malformed", "no byte", nil)
	add("short", "malformed", "47 bytes", full.bytes()[:47])
	add("kind_5", "unknown kind", "a kind that is not defined", append([]byte{5}, full.bytes()[1:]...))
	add("kind_0", "unknown kind", "a kind that is not defined", append([]byte{0}, full.bytes()[1:]...))
	add("of_exchange", "malformed", "the kind of an exchange", append([]byte{2}, full.bytes()[1:]...))
	add("of_end", "malformed", "the kind of an end", append([]byte{4}, full.bytes()[1:]...))
	badMake := func(name, comment string, change func(r *raw)) {
		r := makes
		r.made = append([]uint32(nil), makes.made...)
		change(&r)
		add(name, "malformed", comment, r.bytes())
	}
	add("made_short", "malformed", "63 bytes", makes.bytes()[:63])
	badMake("made_mode", "a mode with a type", func(r *raw) { r.made[0] = unix.S_IFREG | 0o640 })
	badMake("made_reserved", "a reserved byte", func(r *raw) { r.made[3] = 1 << 24 })
	badMake("made_nowhere", "no path", func(r *raw) { r.path = nil })
	badMake("made_no_length", "a length that stays", func(r *raw) { r.length = -1 })
	badMake("made_patches", "patches", func(r *raw) { r.flags, r.ranges, r.countImg = 3, []int64{0, 4096, 8192, 512}, -1 })
	bad("flags", "an unknown flag", func(r *raw) { r.flags = 5 })
	bad("patches_none", "no patches where there are to be some", func(r *raw) { r.flags = 3 })
	bad("patches_flag", "patches without their flag", func(r *raw) { r.countImg = -1 })
	badPatch := func(name, comment string, at int, n int64) {
		r := patches
		r.ranges = append([]int64(nil), patches.ranges...)
		r.ranges[at] = n
		add(name, "malformed", comment, r.bytes())
	}
	badPatch("patch_empty", "a patch of 0 bytes", 5, 0)
	badPatch("patch_block", "a patch that goes beyond its block", 7, 513)
	badPatch("patch_order", "patches out of order", 4, 11776)
	bad("time_without_flag", "an mtime that is not set", func(r *raw) { r.flags = 0 })
	bad("nanoseconds", "10^9 nanoseconds", func(r *raw) { r.nsec = 1e9 })
	bad("length", "length -2", func(r *raw) { r.length = -2 })
	bad("cut", "the last byte is missing", func(r *raw) { r.ranges = r.ranges[:7]; r.countImg = 1; r.tail = make([]byte, 7) })
	bad("tail", "a byte behind the ranges", func(r *raw) { r.tail = []byte{0} })
	bad("path_cut", "more names than there are", func(r *raw) { r.ranges, r.freed = nil, 0; r.countNames = 1 })
	bad("path_empty_name", "a name of 0 bytes", func(r *raw) { r.path[0] = "" })
	bad("freed_count", "more freed ranges than there are", func(r *raw) { r.countF = 1<<32 - 2 })
	bad("images_count", "more images than there are", func(r *raw) { r.countImg = 1 << 28 })
	bad("freed_unaligned", "freed ranges are whole blocks", func(r *raw) { r.ranges[1] = 4095 })
	bad("freed_offset", "a freed range at no multiple of 4096", func(r *raw) { r.ranges[0] = 8193 })
	bad("freed_negative", "a freed range at a negative offset", func(r *raw) { r.ranges[0] = -4096 })
	bad("image_offset", "an image at no multiple of 4096", func(r *raw) { r.ranges[4] = 12289 })
	bad("image_empty", "an image of 0 bytes", func(r *raw) { r.ranges[7] = 0 })
	bad("image_overflow", "an image that ends beyond 2^63", func(r *raw) { r.ranges[7] = 1<<63 - 1 })
	bad("image_negative", "an image of negative length", func(r *raw) { r.ranges[7] = -1 })
	bad("images_overlap", "an image begins within the one before", func(r *raw) { r.ranges[6] = 16384 })
	bad("images_order", "images out of order", func(r *raw) { r.ranges[2], r.ranges[4] = r.ranges[4], r.ranges[2] })
	return all
}

func TestHeadVectors(t *testing.T) {
	paths := vectors.Sync(t, vectorDir, "head_", headVectors(), *update)
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		h, err := Parse(v.Hex("head"))
		if err == nil {
			checkHead(t, v, h)
		}
		return err
	})
}

func checkHead(t *testing.T, v *vectors.Vector, h *Head) {
	if !bytes.Equal(h.ID[:], v.Hex("id")) || strings.Join(h.Path, "/") != v.Get("path") || fmt.Sprint(h.Length) != v.Get("length") ||
		fmt.Sprint(h.Freed) != v.Get("freed") || fmt.Sprint(h.Images) != v.Get("images") || v.Has("patches") != (len(h.Patches) > 0) ||
		len(h.Patches) > 0 && fmt.Sprint(h.Patches) != v.Get("patches") || v.Has("made") != (h.Made != nil) ||
		h.Made != nil && fmt.Sprintf("%o %d %d", h.Made.Mode, h.Made.UID, h.Made.GID) != v.Get("made") || h.bulkLen() != int64(v.Uint("bulk")) {
		t.Errorf("parsed %+v", h)
	}
	if h.Timed != v.Has("mtime") || h.Timed && fmt.Sprintf("%d %d", h.Mtime.Sec, h.Mtime.Nsec) != v.Get("mtime") {
		t.Errorf("mtime %v %v", h.Timed, h.Mtime)
	}
	if again := h.Append([]byte{9}); !bytes.Equal(again[1:], v.Hex("head")) {
		t.Errorf("re-encoded %x", again)
	}
}

// A path that the encoding has no room for is a hint less, not a broken transaction.
func TestHeadDeepPath(t *testing.T) {
	h := Head{Path: make([]string, maxPath+1), Length: 7}
	for i := range h.Path {
		h.Path[i] = "n"
	}
	got, err := Parse(h.Append(nil))
	if h.Path = nil; err != nil || !reflect.DeepEqual(got, &h) {
		t.Errorf("%+v, %v", got, err)
	}
}

// FuzzParse: nothing panics, and what parses is written back byte for byte.
func FuzzParse(f *testing.F) {
	for _, v := range headVectors() {
		f.Add(v.Hex("head"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		if err != nil {
			if h != nil || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrKind) {
				t.Fatalf("%+v, %v", h, err)
			}
			return
		}
		if h.bulkLen() < 0 {
			t.Fatalf("%d bytes of bulk", h.bulkLen())
		}
		if again := h.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x is written back as %x", b, again)
		}
	})
}
