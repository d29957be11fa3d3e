package redo

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
)

// Kind is the first byte of every head. Another layout is another kind.
type Kind uint8

const (
	KindFile     Kind = 1 // a Head
	KindExchange Kind = 2 // the intent of an exchange of two names
	KindMake     Kind = 3 // a Head that has all of a new file
	KindEnd      Kind = 4 // an End

	block     = 4096 // of the host
	headSize  = 48   // of a Head before its path
	madeSize  = 16   // and of what a file is made with, where it is
	rangeSize = 16
	flagTimed = 1
	flagPatch = 2
	flagOver  = 1
	maxPath   = 1<<16 - 1
	nsPerSec  = 1e9
)

// KindOf answers the kind of a head; ErrMalformed where there is none, ErrKind where this program knows no such kind.
func KindOf(b []byte) (Kind, error) {
	switch {
	case len(b) == 0:
		return 0, fmt.Errorf("redo: empty head: %w", ErrMalformed)
	case Kind(b[0]) >= KindFile && Kind(b[0]) <= KindEnd:
		return Kind(b[0]), nil
	}
	return 0, fmt.Errorf("redo: kind %d: %w", b[0], ErrKind)
}

// Range is a run of bytes of a host file.
type Range struct{ Off, Len int64 }

// End is the offset behind the last byte.
func (r Range) End() int64 { return r.Off + r.Len }

// Head describes one transaction of one container: what the journal covers with its MACs. The bulk that follows holds the bytes of Images, one after the
// other. Freed and Length say what earlier transactions no longer mean: of those replay writes nothing there.
type Head struct {
	ID     keys.ObjectID
	Path   []string      // sealed host names from the vault's root down to the file; empty: unknown, to be found by a walk. A hint: renames make it stale
	Length int64         // of the host file afterwards, exactly; -1: as it is (a head that only sets the time)
	Timed  bool          // Mtime is valid
	Mtime  unix.Timespec // logical mtime, to stand on the host file
	Freed  []Range       // became holes by this transaction: voids every image of an earlier transaction within it; whole 4 KiB blocks
	Images []Range       // ascending, not overlapping; Off a multiple of 4096, Len any (a last short frame); the bulk in this order
	// Patches are what changed of blocks since the journal had all of them: they lie over the last image. Ascending, not overlapping, none beyond its
	// block; the bulk behind that of the images.
	Patches []Range
	// Made is set where the head has all of a new file, and the host may have none of it, its name included: where the file is nowhere replay makes it at
	// the last path that it had. The head has a path, a length and no patches; of what no image covers all is zero.
	Made *Made
}

// Made is what a file is made with besides its content.
type Made struct{ Mode, UID, GID uint32 } // Mode without the type

// bulkLen is how many bytes of bulk belong to the head.
func (h *Head) bulkLen() int64 {
	n := int64(0)
	for _, rs := range [][]Range{h.Images, h.Patches} {
		for _, r := range rs {
			n += r.Len
		}
	}
	return n
}

// Append appends the encoding of h, for which Parse answers h again. A path deeper than 65535 names is left out. h has to be as Head says, else
// Parse refuses what is written.
//
//	 0  1  kind = 1, or 3 where Made is set
//	 1  1  flags: bit 0: the mtime is set; bit 1: there are patches
//	 2  2  k: number of names of the path
//	 4  4  f: number of freed ranges
//	 8  4  i: number of images
//	12  4  mtime, nanoseconds (0 where it is not set)
//	16 16  object id
//	32  8  length of the host file (i64), -1 where it stays
//	40  8  mtime, seconds (i64; 0 where it is not set)
//	48 16  kind 3 only: mode, owner, group (u32 each), 0
//	 …  …  k names: u8 length, the name
//	 …  16·f  freed: u64 offset, u64 length, multiples of 4096
//	 …  16·i  images: u64 offset, a multiple of 4096; u64 length
//	 …  16·n  patches: u64 offset, u64 length; to the end of the head
func (h *Head) Append(b []byte) []byte {
	le := binary.LittleEndian
	path := h.Path
	if len(path) > maxPath {
		path = nil
	}
	var flags byte
	var mtime unix.Timespec
	if h.Timed {
		flags, mtime = flagTimed, h.Mtime
	}
	if len(h.Patches) > 0 {
		flags |= flagPatch
	}
	kind := KindFile
	if h.Made != nil {
		kind = KindMake
	}
	n := headSize + madeSize + rangeSize*(len(h.Freed)+len(h.Images)+len(h.Patches))
	for _, name := range path {
		n += 1 + len(name)
	}
	b = slices.Grow(b, n)
	b = append(b, byte(kind), flags)
	b = le.AppendUint16(b, uint16(len(path)))
	b = le.AppendUint32(b, uint32(len(h.Freed)))
	b = le.AppendUint32(b, uint32(len(h.Images)))
	b = le.AppendUint32(b, uint32(mtime.Nsec))
	b = append(b, h.ID[:]...)
	b = le.AppendUint64(b, uint64(h.Length))
	b = le.AppendUint64(b, uint64(mtime.Sec))
	if m := h.Made; m != nil {
		for _, x := range []uint32{m.Mode, m.UID, m.GID, 0} {
			b = le.AppendUint32(b, x)
		}
	}
	b = appendPath(b, path)
	for _, rs := range [][]Range{h.Freed, h.Images, h.Patches} {
		for _, r := range rs {
			b = le.AppendUint64(b, uint64(r.Off))
			b = le.AppendUint64(b, uint64(r.Len))
		}
	}
	return b
}

// Parse reads what Append wrote, and nothing else; b is not kept. The error is ErrMalformed or ErrKind.
func Parse(b []byte) (*Head, error) {
	kind, err := KindOf(b)
	if err != nil {
		return nil, err
	}
	size := headSize
	if kind == KindMake {
		size += madeSize
	}
	if kind != KindFile && kind != KindMake || len(b) < size {
		return nil, malformed("head of kind %d with %d bytes", kind, len(b))
	}
	le := binary.LittleEndian
	h := &Head{
		ID: keys.ObjectID(b[16:]), Length: int64(le.Uint64(b[32:])), Timed: b[1]&flagTimed != 0,
		Mtime: unix.Timespec{Sec: int64(le.Uint64(b[40:])), Nsec: int64(le.Uint32(b[12:]))},
	}
	switch {
	case b[1]&^(flagTimed|flagPatch) != 0:
		return nil, malformed("flags %#x", b[1])
	case h.Length < -1:
		return nil, malformed("length %d", h.Length)
	case h.Mtime.Nsec >= nsPerSec, !h.Timed && h.Mtime != unix.Timespec{}:
		return nil, malformed("mtime")
	}
	patched := b[1]&flagPatch != 0
	if kind == KindMake {
		h.Made = &Made{Mode: le.Uint32(b[48:]), UID: le.Uint32(b[52:]), GID: le.Uint32(b[56:])}
		if h.Made.Mode > 0o7777 || le.Uint32(b[60:]) != 0 || h.Length < 0 || patched || le.Uint16(b[2:]) == 0 {
			return nil, malformed("a file is made with mode %o, length %d, flags %#x", h.Made.Mode, h.Length, b[1])
		}
	}
	names, freed, images := int(le.Uint16(b[2:])), uint64(le.Uint32(b[4:])), uint64(le.Uint32(b[8:]))
	if h.Path, b, err = parsePath(b[size:], names); err != nil {
		return nil, err
	}
	known := rangeSize * (freed + images)
	if n := uint64(len(b)); n < known || patched != (n > known) || n%rangeSize != 0 {
		return nil, malformed("%d bytes of ranges", len(b))
	}
	if h.Freed, err = parseRanges(b[:rangeSize*freed], block); err != nil {
		return nil, err
	}
	if h.Images, err = parseRanges(b[rangeSize*freed:known], block); err != nil {
		return nil, err
	}
	if h.Patches, err = parseRanges(b[known:], 1); err != nil {
		return nil, err
	}
	for _, r := range h.Freed {
		if r.Len%block != 0 {
			return nil, malformed("%d bytes freed at %d", r.Len, r.Off)
		}
	}
	for _, rs := range [][]Range{h.Images, h.Patches} {
		for i, r := range rs {
			if i > 0 && r.Off < rs[i-1].End() {
				return nil, malformed("image at %d out of order", r.Off)
			}
		}
	}
	for _, r := range h.Patches {
		if r.Off/block != (r.End()-1)/block {
			return nil, malformed("%d bytes of a block patched at %d", r.Len, r.Off)
		}
	}
	return h, nil
}

// parseRanges reads all of b, whose length is a multiple of rangeSize, as ranges that begin at multiples of unit.
func parseRanges(b []byte, unit uint64) ([]Range, error) {
	if len(b) == 0 {
		return nil, nil
	}
	rs := make([]Range, 0, len(b)/rangeSize)
	for ; len(b) > 0; b = b[rangeSize:] {
		off, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if off%unit != 0 || n == 0 || off > math.MaxInt64 || n > math.MaxInt64-off {
			return nil, malformed("range of %d bytes at %d", n, off)
		}
		rs = append(rs, Range{int64(off), int64(n)})
	}
	return rs, nil
}

func appendPath(b []byte, path []string) []byte {
	for _, name := range path {
		b = append(append(b, byte(len(name))), name...)
	}
	return b
}

// parsePath reads n names and answers what is behind them.
func parsePath(b []byte, n int) (path []string, rest []byte, err error) {
	for range n {
		if len(b) == 0 || b[0] == 0 || len(b) <= int(b[0]) {
			return nil, nil, malformed("path")
		}
		path = append(path, string(b[1:1+int(b[0])]))
		b = b[1+int(b[0]):]
	}
	return path, b, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("redo: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
