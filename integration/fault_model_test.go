package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The model of a run whose calls may fail: what a call that failed did nobody knows, so every value is a set.

// maybe is a value of which failed calls made uncertain what it is. live is what it may be now, since what a power cut may leave: all that it may have
// been since it was promised last.
type maybe[T comparable] struct{ live, since []T }

func certainly[T comparable](v T) maybe[T] { return maybe[T]{[]T{v}, []T{v}} }

// set is a call that gave it a value, or failed.
func (m *maybe[T]) set(v T, err error) {
	if err == nil {
		m.live = nil
	}
	m.live = including(m.live, v)
	m.since = including(m.since, v)
}

// promise is a sync that was acknowledged.
func (m *maybe[T]) promise() { m.since = slices.Clone(m.live) }

// doubt is a hand-over that failed: some of what was written is gone, or is not.
func (m *maybe[T]) doubt() { m.live = slices.Clone(m.since) }

func including[T comparable](s []T, v T) []T {
	if slices.Contains(s, v) {
		return s
	}
	return append(slices.Clone(s), v)
}

// faultFile is a file of whole pages, each with a stamp of its own; 0 is a hole.
type faultFile struct {
	ino   uint64
	size  maybe[int64] // pages
	pages map[int64]*maybe[uint64]
}

// unborn stands for the file that a failed create may have made.
var unborn = &faultFile{size: certainly[int64](0), pages: map[int64]*maybe[uint64]{}}

func newFaultFile(ino uint64) *faultFile {
	return &faultFile{ino: ino, size: certainly[int64](0), pages: map[int64]*maybe[uint64]{}}
}

func (f *faultFile) page(i int64) *maybe[uint64] {
	if f.pages[i] == nil {
		m := certainly[uint64](0)
		f.pages[i] = &m
	}
	return f.pages[i]
}

func (f *faultFile) wrote(first, n int64, stamp uint64, err error) {
	for i := first; i < first+n; i++ {
		f.page(i).set(stamp, err)
	}
	sizes := f.size.live
	if err == nil {
		f.size.live = nil
	}
	for _, s := range sizes {
		f.size.set(max(s, first+n), errUnsure)
	}
}

func (f *faultFile) truncated(to int64, err error) {
	for i, p := range f.pages {
		if i >= to {
			p.set(0, err)
		}
	}
	f.size.set(to, err)
}

// errUnsure keeps what a value may have been, too.
var errUnsure = fmt.Errorf("unsure")

func (f *faultFile) each(do func(m *maybe[uint64])) {
	for _, p := range f.pages {
		do(p)
	}
}

func (f *faultFile) promise() {
	f.size.promise()
	f.each((*maybe[uint64]).promise)
}

func (f *faultFile) doubt() {
	f.size.doubt()
	f.each((*maybe[uint64]).doubt)
}

// faultNames are the names of the root directory and what they are of, nil where they are free.
type faultNames map[string]*maybe[*faultFile]

// compare looks at a vault and answers what is none of the values that pick answers.
func (names faultNames) compare(k *kernel, cut bool) (problems []string) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	listed, err := k.list(fuse.FUSE_ROOT_ID)
	if err != nil {
		wrong("list: %v", err)
		return problems
	}
	for _, name := range listed {
		if names[name] == nil {
			wrong("a name %q came from nowhere", name)
		}
	}
	for name, m := range names {
		allowed := m.live
		if cut {
			allowed = m.since
		}
		node, a, err := k.lookup(fuse.FUSE_ROOT_ID, name)
		switch {
		case err == unix.ENOENT:
			if !slices.Contains(allowed, nil) {
				wrong("%q is gone", name)
			}
			continue
		case err != nil:
			wrong("lookup of %q: %v", name, err)
			continue
		}
		i := slices.IndexFunc(allowed, func(f *faultFile) bool { return f != nil && f != unborn && f.ino == a.Ino })
		if i < 0 {
			i = slices.Index(allowed, unborn)
		}
		switch {
		case i < 0:
			wrong("%q is inode %d, which it was never promised to be", name, a.Ino)
		case allowed[i] == unborn && !cut: // half made, and not to be removed then: the next mount finds it empty
		default:
			if err := allowed[i].compare(k, node, a, cut); err != nil {
				wrong("%q: %v", name, err)
			}
		}
		k.forget(node)
	}
	return problems
}

func (f *faultFile) compare(k *kernel, node uint64, a fuse.Attr, cut bool) error {
	fh, err := k.open(node, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = k.close(node, fh, unix.O_RDONLY) }()
	return f.compareBytes(int64(a.Size), cut, func(off int64) ([]byte, error) { return k.read(node, fh, off, page) })
}

// compareBytes compares a size and the pages that read answers.
func (f *faultFile) compareBytes(size int64, cut bool, read func(off int64) ([]byte, error)) error {
	sizes := f.size.live
	if cut {
		sizes = f.size.since
	}
	if size%page != 0 || !slices.Contains(sizes, size/page) {
		return fmt.Errorf("size %d, not one of %d pages", size, sizes)
	}
	for i := range size / page {
		b, err := read(i * page)
		if err != nil || len(b) != page {
			return fmt.Errorf("page %d of %d: %d bytes, %w", i, size/page, len(b), err)
		}
		stamps := []uint64{0}
		if m := f.pages[i]; m != nil && cut {
			stamps = m.since
		} else if m != nil {
			stamps = m.live
		}
		got := binary.LittleEndian.Uint64(b)
		if !bytes.Equal(b, stampedPage(got)) {
			return fmt.Errorf("page %d is mixed", i)
		}
		if !slices.Contains(stamps, got) {
			return fmt.Errorf("page %d of %d has stamp %d, not one of %d", i, size/page, got, stamps)
		}
	}
	return nil
}

func stampedPage(stamp uint64) []byte {
	return bytes.Repeat(binary.LittleEndian.AppendUint64(nil, stamp), page/8)
}
