package fs

import (
	"slices"
	"sync"
	"time"

	"github.com/cofferfs/coffer/container/dirs"
)

// Who reads many small files that the host has not in memory waits for its disk once for each: tar and grep -r in the order of the listing, cp -a in that of the
// inodes, which is about the same, rsync and git in that of the names. Where such an order shows, the host fetches the next files before they are opened.
//
// Whether that is of use shows, too: what was fetched is opened, and the host still has it then. Each file that is fetched takes one of a credit, and gives two back
// when it was of use. So little is fetched in vain where files are read at random, where the host is short of memory, and where it keeps nothing from one open to the
// next. What the host has in memory takes none; a few such files in a row end the search for more.

const (
	trailFirst  = 2   // files fetched ahead where an order begins to show. Each that is opened in order doubles that, up to
	trailMost   = 16  // files
	trailNear   = 4   // files further on that are still in order: programs leave some out
	trailNames  = 128 // names looked up at a time
	trailsMost  = 256 // directories
	trailsBusy  = 2   // directories of which files are being fetched: each takes a descriptor
	trailCredit = 128 // at first, and trailPause after it ran out
	creditMost  = 256
	trailPause  = time.Minute
)

// trails are the directories of which files are being read. Its methods but opened are called with mu held, and leave it for host calls.
type trails struct {
	mu      sync.Mutex        // guards what follows and each trail; no other lock is taken under it
	of      map[uint64]*trail // by the directory's node
	credit  int
	ran     time.Time // when credit ran out
	busy    int
	fetches closings
}

// trail is the way through the files of one directory.
type trail struct {
	before, last dirs.Entry // the two that were opened last
	lost         bool       // last was not foreseen, and the order is yet to be found
	order        dirs.Order
	next         []dirs.Entry // what follows last in this order, as far as its names were looked up
	all          bool         // that is to the end
	fetched      int          // how many of next were fetched, the first ones
	window       int          // how many are to be; 0 where no order is known
	busy         bool
}

func newTrails() *trails {
	t := &trails{of: map[uint64]*trail{}, credit: trailCredit}
	t.fetches.none.L = &t.fetches.mu
	return t
}

// opened is called when a file is opened for reading of which the kernel has no pages. cold: nor has the host. It waits for nothing.
func (t *trails) opened(fs *FS, l link, cold bool) {
	t.mu.Lock()
	tr := t.of[l.parent.node]
	if tr == nil && cold {
		tr = t.add(l.parent.node)
	}
	begin := tr != nil && t.step(tr, l.entry, cold) && t.wants(tr)
	if begin {
		tr.busy = true
		t.busy++
	}
	t.mu.Unlock()
	if !begin {
		return
	}
	fs.hold(l.parent)
	t.fetches.begin(func() {
		defer fs.release(l.parent)
		d, err := l.parent.directory()
		t.mu.Lock()
		defer t.mu.Unlock()
		if err == nil {
			t.fetch(tr, d)
		}
		tr.busy = false
		t.busy--
	})
}

// add begins a trail. Where there are many, any other one is given up for it.
func (t *trails) add(node uint64) *trail {
	for other := range t.of {
		if len(t.of) < trailsMost {
			break
		}
		delete(t.of, other)
	}
	tr := new(trail)
	t.of[node] = tr
	return tr
}

// step notes that e was opened. It answers whether that says anything of what comes next.
func (t *trails) step(tr *trail, e dirs.Entry, cold bool) bool {
	near := tr.next[:min(len(tr.next), tr.fetched+trailNear)]
	i := slices.IndexFunc(near, func(n dirs.Entry) bool { return n.ID == e.ID })
	switch {
	case i >= 0 && tr.window > 0:
		if i < tr.fetched && !cold {
			t.credit = min(t.credit+2, creditMost)
		}
		tr.window = min(2*tr.window, trailMost)
		tr.next, tr.fetched = tr.next[i+1:], max(0, tr.fetched-i-1)
	case cold:
		tr.lost, tr.next, tr.fetched, tr.window = true, nil, 0, 0
	default: // it was passed over, or has been in memory before
		return false
	}
	tr.before, tr.last = tr.last, e
	return true
}

// wants reports whether there is enough to be done, and may be.
func (t *trails) wants(tr *trail) bool {
	if t.credit == 0 && time.Since(t.ran) > trailPause {
		t.credit = trailCredit
	}
	end := tr.window
	if tr.all {
		end = min(end, len(tr.next))
	}
	some := tr.fetched < end && tr.fetched <= tr.window/2 // not for each file a goroutine
	return (tr.lost || some) && t.credit > 0 && !tr.busy && t.busy < trailsBusy
}

// fetch fills the window of a trail.
func (t *trails) fetch(tr *trail, d *dirs.Dir) {
	for t.credit > 0 {
		switch {
		case tr.lost:
			t.find(tr, d)
		case tr.fetched < min(tr.window, len(tr.next)):
			t.fetchNext(tr, d)
		case len(tr.next) < tr.window && !tr.all:
			t.lookFurther(tr, d)
		default:
			return
		}
	}
}

// find looks for an order in which the last file is the first of all, or comes soon after the one before.
func (t *trails) find(tr *trail, d *dirs.Dir) {
	tr.lost = false
	before, last := tr.before, tr.last
	for _, o := range []dirs.Order{dirs.BySeq, dirs.ByName} {
		var next, near []dirs.Entry
		var first bool
		t.unlocked(func() {
			if before != (dirs.Entry{}) {
				near, _ = d.Behind(before, o, trailNear)
			}
			next, first = d.Behind(last, o, trailNames)
		})
		if tr.last != last {
			return
		}
		if first || slices.Contains(near, last) {
			tr.order, tr.window, tr.next, tr.all = o, trailFirst, next, len(next) < trailNames
			return
		}
	}
	t.spend() // a search in vain, which takes its time in a large directory
}

// lookFurther looks up what follows behind next.
func (t *trails) lookFurther(tr *trail, d *dirs.Dir) {
	end, o := tr.end(), tr.order
	var more []dirs.Entry
	t.unlocked(func() { more, _ = d.Behind(end, o, trailNames) })
	if tr.window > 0 && tr.end() == end {
		tr.next, tr.all = append(tr.next, more...), len(more) < trailNames
	}
}

// end is the last file whose name was looked up.
func (tr *trail) end() dirs.Entry {
	if n := len(tr.next); n > 0 {
		return tr.next[n-1]
	}
	return tr.last
}

// fetchNext has the host fetch one file more.
func (t *trails) fetchNext(tr *trail, d *dirs.Dir) {
	t.spend()
	e := tr.next[tr.fetched]
	tr.fetched++
	var cold bool
	t.unlocked(func() { cold = d.Fetch(e, earlyBytes) })
	if cold {
		return
	}
	t.credit++
	tr.window /= 2
	if i := slices.Index(tr.next[:tr.fetched], e); i >= 0 {
		tr.next = slices.Delete(tr.next, i, i+1)
		tr.fetched--
	}
}

func (t *trails) spend() {
	if t.credit--; t.credit == 0 {
		t.ran = time.Now()
	}
}

func (t *trails) unlocked(fn func()) {
	t.mu.Unlock()
	defer t.mu.Lock()
	fn()
}
