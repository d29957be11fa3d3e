package check

import (
	"context"
	"errors"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// Live is how a check makes sure of what it found in a vault that is in use. What proves right is right whoever writes meanwhile; what does not may be
// half-way through a change, and is looked at again while there is none.
type Live struct {
	// Hold calls fn while nothing is changed that a request would change: no name, no attribute. HoldSynced does so when, besides, everything that was
	// written is in its place on the host. Both may be called concurrently; an error says that fn was not called.
	Hold, HoldSynced func(fn func()) error
	// InSession tells whether a link sequence was drawn by the session that runs.
	InSession func(seq uint64) bool
}

// made reports whether the session that runs made a link, whose traces it takes away by itself. l may be nil.
func (l *Live) made(x names.Link) bool { return l != nil && l.InSession(x.Seq) }

// gone reports whether an error says no more than that an object was moved or removed since it was listed. l may be nil.
func (l *Live) gone(err error) bool { return l != nil && errors.Is(err, unix.ENOENT) }

// sure has look report what it finds. In a vault that is in use it looks again while nothing changes, and that counts.
func (c *checker) sure(look func(c *checker)) {
	if c.Live == nil {
		look(c)
		return
	}
	var found []Finding
	probe := &checker{Config: c.Config, walked: c.walked, report: report{found: func(f Finding) { found = append(found, f) }}}
	look(probe)
	if slices.ContainsFunc(found, func(f Finding) bool { return f.Kind != Foreign || names.IsSidecar(path.Base(f.Host)) }) {
		first := found
		if err := c.Live.Hold(func() { found = nil; look(probe) }); err != nil {
			found = unsure(first, err)
		}
	}
	for _, f := range found {
		c.add(f)
	}
}

// unsure are findings that could not be looked at again.
func unsure(found []Finding, err error) []Finding {
	for i := range found {
		found[i].Kind, found[i].Hint = Unchecked, "it could not be looked at again: "+err.Error()
	}
	return found
}

// doubt is a container in which something seems wrong. h is open.
type doubt struct {
	o *object
	h disk.File
	looked
	whole bool // its header proved right at last, and the rest is to be looked at
	tries int
}

// doubts wait for a look while nothing changes.
type doubts struct {
	mu  sync.Mutex
	all []*doubt
}

const (
	maxDoubts = 64 // that wait; each has a file open
	maxTries  = 4  // for a container whose header is what seems wrong
)

// doubt looks again at what seems lost of a container, and has it wait for a surer look where that does not help.
func (c *checker) doubt(ctx context.Context, d *doubt) {
	if d.err == nil {
		d.looked = c.look(ctx, d.h, d.o, d.rest())
	}
	if d.good() || ctx.Err() != nil {
		d.h.Close()
		return
	}
	c.doubts.mu.Lock()
	c.doubts.all = append(c.doubts.all, d)
	c.doubts.mu.Unlock()
	c.resolveDoubts(ctx, maxDoubts)
}

// resolveDoubts takes the doubts where there are so many, looks at them in a vault that is held still, and reports what is wrong then.
func (c *checker) resolveDoubts(ctx context.Context, least int) {
	c.doubts.mu.Lock()
	all := c.doubts.all
	if len(all) < least {
		c.doubts.mu.Unlock()
		return
	}
	c.doubts.all = nil
	c.doubts.mu.Unlock()
	for len(all) > 0 && ctx.Err() == nil {
		err := c.Live.HoldSynced(func() {
			for _, d := range all {
				c.again(ctx, d)
			}
		})
		var left []*doubt
		for _, d := range all {
			if c.resolve(ctx, d, err) {
				d.h.Close()
			} else {
				left = append(left, d)
			}
		}
		all = left
	}
	for _, d := range all {
		d.h.Close()
	}
}

// again looks at a container in a vault that is held still: at what seems lost, or at its header alone, since all of it may take long.
func (c *checker) again(ctx context.Context, d *doubt) {
	var st unix.Stat_t
	if d.h.Stat(&st) == nil && st.Nlink == 0 { // removed
		d.looked = looked{}
		return
	}
	header := d.err != nil
	d.looked = c.look(ctx, d.h, d.o, d.rest())
	d.whole = header && d.err == nil
}

// rest are the ranges that seem lost. Header and length are looked at in any case.
func (d *doubt) rest() []container.LostRange { return append([]container.LostRange{}, d.Lost...) }

// resolve reports what is wrong with a container. It answers false where only its header was looked at since: then the rest was, too, and seems wrong.
func (c *checker) resolve(ctx context.Context, d *doubt, err error) bool {
	if d.tries++; d.whole && err == nil {
		d.whole = false
		d.looked = c.look(ctx, d.h, d.o, nil)
		if !d.good() && d.tries < maxTries {
			return false
		}
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.add(d.o.finding(Unchecked, "it changes, and the vault could not be held still to look at it: %v", err))
	default:
		c.judge(d.o, &d.looked)
	}
	return true
}
