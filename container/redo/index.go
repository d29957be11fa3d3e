package redo

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/journal"
)

// index is what a log comes to: the last state of every file in it, as positions in the journal. It takes some 50 bytes per 4 KiB of journal.
type index struct {
	log       journal.Log
	bulks     []journal.Bulk
	files     map[keys.ObjectID]*file
	order     []*file     // as they first came
	exchanges []*Exchange // begun and not over, in order
}

// file is the last state of one file.
type file struct {
	id      keys.ObjectID
	path    []string // as the last transaction that had one says
	made    *Made    // the host may have none of it: to be made at its path where it is nowhere
	removed bool     // it lost its last name, path
	moved   bool     // it had another path before
	length  int64    // -1: as it is
	timed   bool
	mtime   unix.Timespec
	blocks  map[int64]source // by number of the block; nil once they are runs
	high    int64            // no image ends beyond
	runs    []run            // ascending
}

// source is where the last image of a block begins in the journal. One that has patches only has no bytes itself.
type source struct {
	piece
	patches []patch // over the image; ascending, not overlapping
}

// patch is a piece that stands at from within its block.
type patch struct {
	from uint32
	piece
}

func (p *patch) end() uint32 { return p.from + p.n }

// piece is a run of bytes of a block.
type piece struct {
	at   int64  // in the bulk
	bulk uint32 // of index.bulks
	n    uint32 // bytes; 0: none
}

// run is a run of bytes of the file that lie side by side in a bulk, too.
type run struct {
	off, n int64
	at     int64
	bulk   uint32
}

// makeIndex reads the heads of the log. A later image of a block takes the place of an earlier one, and what was freed or cut off takes the image
// away. Errors are the host's, ErrMalformed, ErrKind.
func (c *Config) makeIndex(r *journal.Reader) (*index, error) {
	x := &index{files: map[keys.ObjectID]*file{}}
	log, err := r.Each(func(t *journal.Transaction, _ func([]byte, int64) error) error {
		if err := x.add(t); err != nil {
			return fmt.Errorf("transaction at %d: %w", t.LSN, err)
		}
		return nil
	})
	if c.Salvage && errors.Is(err, ErrMalformed) {
		log.Lost, err = true, nil
	}
	if err != nil {
		return nil, err
	}
	x.log = log
	for _, f := range x.order {
		f.makeRuns()
	}
	return x, nil
}

func (x *index) add(t *journal.Transaction) error {
	kind, err := KindOf(t.Head)
	if err != nil {
		return err
	}
	switch kind {
	case KindExchange:
		return x.addExchange(t)
	case KindEnd:
		return x.addEnd(t)
	}
	h, err := Parse(t.Head)
	if err != nil {
		return err
	}
	if h.bulkLen() != t.BulkLen {
		return malformed("%d bytes of bulk, %d of images", t.BulkLen, h.bulkLen())
	}
	f := x.file(h.ID)
	if h.Made != nil {
		f.made = h.Made
		clear(f.blocks)
	}
	for _, r := range h.Freed {
		f.void(r.Off, r.End())
	}
	at := int64(0)
	for _, r := range h.Images {
		f.image(r, at, uint32(len(x.bulks)))
		at += r.Len
	}
	for _, r := range h.Patches {
		f.patch(r, at, uint32(len(x.bulks)))
		at += r.Len
	}
	if at > 0 {
		x.bulks = append(x.bulks, t.Keep())
	}
	if h.Length >= 0 {
		f.cut(h.Length)
	}
	if h.Timed {
		f.timed, f.mtime = true, h.Mtime
	}
	f.at(h.Path)
	return nil
}

// file returns what is known of the file id, nothing at first.
func (x *index) file(id keys.ObjectID) *file {
	f := x.files[id]
	if f == nil {
		f = &file{id: id, length: -1, blocks: map[int64]source{}}
		x.files[id] = f
		x.order = append(x.order, f)
	}
	return f
}

func (x *index) addEnd(t *journal.Transaction) error {
	e, err := ParseEnd(t.Head)
	if err != nil {
		return err
	}
	if t.BulkLen > 0 {
		return malformed("end with %d bytes of bulk", t.BulkLen)
	}
	f := x.file(e.ID)
	f.made = nil
	if e.Removed {
		f.removed = true
	}
	f.at(e.Path)
	return nil
}

// at notes the path that a transaction has.
func (f *file) at(path []string) {
	if len(path) > 0 {
		f.moved = f.moved || f.path != nil && !slices.Equal(f.path, path)
		f.path = path
	}
}

func (x *index) addExchange(t *journal.Transaction) error {
	e, err := ParseExchange(t.Head)
	if err != nil {
		return err
	}
	if t.BulkLen > 0 {
		return malformed("exchange with %d bytes of bulk", t.BulkLen)
	}
	if e.Over {
		x.exchanges = slices.DeleteFunc(x.exchanges, func(o *Exchange) bool { return o.ID == e.ID })
	} else {
		x.exchanges = append(x.exchanges, e)
	}
	return nil
}

// image enters an image, whose bytes begin at at of a bulk.
func (f *file) image(r Range, at int64, bulk uint32) {
	for off := r.Off; off < r.End(); off += block {
		f.blocks[off/block] = source{piece: piece{at: at + off - r.Off, bulk: bulk, n: uint32(min(block, r.End()-off))}}
	}
	f.reach(r.End())
}

// patch enters a patch, which lies within a block, over the image that the block has.
func (f *file) patch(r Range, at int64, bulk uint32) {
	s := f.blocks[r.Off/block]
	s.patches = lay(s.patches, patch{uint32(r.Off % block), piece{at: at, bulk: bulk, n: uint32(r.Len)}})
	f.blocks[r.Off/block] = s
	f.reach(r.End())
}

// lay lays a patch over others; of those that it covers in part the rest stays.
func lay(all []patch, p patch) []patch {
	i := sort.Search(len(all), func(i int) bool { return all[i].end() > p.from })
	j := i
	for j < len(all) && all[j].from < p.end() {
		j++
	}
	with := make([]patch, 0, 3)
	if i < j && all[i].from < p.from {
		before := all[i]
		before.n = p.from - before.from
		with = append(with, before)
	}
	with = append(with, p)
	if i < j && all[j-1].end() > p.end() {
		behind := all[j-1]
		skip := p.end() - behind.from
		behind.from, behind.at, behind.n = p.end(), behind.at+int64(skip), behind.n-skip
		with = append(with, behind)
	}
	return slices.Replace(all, i, j, with...)
}

// reach notes that something stands before end.
func (f *file) reach(end int64) {
	f.high = max(f.high, end)
	if f.length >= 0 {
		f.length = max(f.length, end)
	}
}

// void takes away the images of all blocks that begin in [from, to).
func (f *file) void(from, to int64) {
	from, to = (from+block-1)/block, (min(to, f.high)+block-1)/block
	if to-from < int64(len(f.blocks)) {
		for n := from; n < to; n++ {
			delete(f.blocks, n)
		}
		return
	}
	for n := range f.blocks {
		if from <= n && n < to {
			delete(f.blocks, n)
		}
	}
}

// cut sets the length.
func (f *file) cut(length int64) {
	f.length = length
	if f.high <= length {
		return
	}
	f.void(length, f.high)
	if last, ok := f.blocks[length/block]; ok {
		end := uint32(length % block)
		last.n = min(last.n, end) // one that begins at length is gone
		for i := range last.patches {
			p := &last.patches[i]
			p.n = min(p.n, max(end, p.from)-p.from)
		}
		last.patches = slices.DeleteFunc(last.patches, func(p patch) bool { return p.n == 0 })
		f.blocks[length/block] = last
	}
	f.high = length
}

// makeRuns makes runs of the blocks.
func (f *file) makeRuns() {
	numbers := make([]int64, 0, len(f.blocks))
	for n := range f.blocks {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		s, at := f.blocks[n], uint32(0)
		image := func(to uint32) { // what shows of it between patches
			if to = min(to, s.n); at < to {
				f.extend(n*block+int64(at), piece{at: s.at + int64(at), bulk: s.bulk, n: to - at})
			}
		}
		for _, p := range s.patches {
			image(p.from)
			f.extend(n*block+int64(p.from), p.piece)
			at = p.end()
		}
		image(block)
	}
	f.blocks = nil
}

// extend appends a piece to the runs, to the last one where it goes on.
func (f *file) extend(off int64, p piece) {
	if p.n == 0 {
		return
	}
	if k := len(f.runs) - 1; k >= 0 && f.runs[k].continues(off, p) {
		f.runs[k].n += int64(p.n)
		return
	}
	f.runs = append(f.runs, run{off: off, n: int64(p.n), at: p.at, bulk: p.bulk})
}

func (e *run) continues(off int64, p piece) bool {
	return e.off+e.n == off && e.bulk == p.bulk && e.at+e.n == p.at
}

// idle: there is nothing to be done to the file.
func (f *file) idle() bool { return len(f.runs) == 0 && f.length < 0 && !f.timed }

// end is behind the last byte that an image has.
func (f *file) end() int64 {
	if k := len(f.runs); k > 0 {
		return f.runs[k-1].off + f.runs[k-1].n
	}
	return 0
}

// size is the length of the host file that has host bytes now.
func (f *file) size(host int64) int64 {
	if f.length >= 0 {
		return f.length
	}
	return max(host, f.end())
}
