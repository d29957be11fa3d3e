package dirs

import (
	"cmp"
	"slices"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// Who foresees which files are read next asks here for their names, and has the host begin with their bytes. All of it is in vain at worst: nothing is loaded, no
// directory opened and nothing reported for it.

// aheadMost is how many entries a directory may have for Behind to look through them.
const aheadMost = 1 << 16

// Order is one in which programs go through the files of a directory.
type Order bool

// BySeq is that of Entries, and about that of the host's inodes.
const (
	BySeq  Order = false
	ByName Order = true
)

func (o Order) compare(a, b Entry) int {
	if o == ByName {
		return cmp.Compare(a.Name, b.Name)
	}
	return cmp.Compare(a.Seq, b.Seq)
}

// Behind answers the next files behind e in an order, n of them at most, and whether e is the first of all. None where there are too many, or none is known.
func (d *Dir) Behind(e Entry, o Order, n int) (next []Entry, first bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(d.links) == 0 || len(d.links) > aheadMost {
		return nil, false
	}
	first = true
	var last Entry // of n that are behind e: what lies behind it is none of the nearest
	known := false
	cut := func() {
		slices.SortFunc(next, o.compare)
		if next = next[:min(n, len(next))]; len(next) == n {
			last, known = next[n-1], true
		}
	}
	for name, l := range d.links {
		if l.typ != names.File {
			continue
		}
		at := l.entry(name)
		switch c := o.compare(at, e); {
		case c < 0:
			first = false
		case c > 0 && (!known || o.compare(at, last) < 0):
			if next = append(next, at); len(next) == 2*n {
				cut()
			}
		}
	}
	cut()
	return next, first
}

// Fetch has the host begin to read the first n bytes of the file of an entry, and waits for no more than that the host opens it. It answers whether the host had
// nothing of them in memory.
func (d *Dir) Fetch(e Entry, n int64) (cold bool) {
	fd := d.t.fds.pin(d)
	if fd == nil {
		return false
	}
	defer d.unpin()
	f, err := fd.Open(d.hostName(e.Name, linkOf(e)), disk.ReadOnly)
	if err != nil {
		return false
	}
	defer f.Close()
	return disk.Fetch(f, n)
}
