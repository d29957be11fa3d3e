package cache

import (
	"errors"
	"time"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/internal/event"
)

// reserve waits until n more dirty bytes fit the file's window and the limit for all files, and sets them aside. n beyond a limit fits when nothing
// else is there. The caller holds no lock. While there is no room it writes dirty frames out itself, so it needs no other
// goroutine to go on: it sleeps only where all room is set aside for writers already admitted, and those wait for nothing but the store.
func (f *File) reserve(n int64) error {
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		own := full(f.dirty+f.reserved, n, c.cfg.Window)
		if !own && !full(c.dirty+c.reserved, n, c.cfg.Dirty) {
			f.reserved += n
			c.reserved += n
			return nil
		}
		victim := f
		if !own {
			victim = c.victimLocked(f)
		}
		if victim == nil || victim.dirty == 0 {
			c.waiting++
			c.room.Wait()
			c.waiting--
			continue
		}
		hopeless := own || victim.failed // no other file could help
		c.mu.Unlock()
		err := victim.makeRoom()
		c.mu.Lock()
		if err != nil && hopeless {
			return err
		}
	}
}

func full(have, n, limit int64) bool { return have > 0 && have+n > limit }

// unreserve gives back what a writer did not use.
func (f *File) unreserve(n int64) {
	if n != 0 {
		f.c.mu.Lock()
		f.c.unreserveLocked(f, n)
		f.c.mu.Unlock()
	}
}

func (c *Cache) unreserveLocked(f *File, n int64) {
	f.reserved -= n
	c.reserved -= n
	c.roomLocked()
}

func (c *Cache) roomLocked() {
	if c.waiting > 0 {
		c.room.Broadcast()
	}
}

// victimLocked picks the file whose frames make room for a write to f: the one with most dirty bytes, or, where every file with dirty
// bytes has failed to write them, f itself rather than another. nil: there are no dirty bytes.
func (c *Cache) victimLocked(f *File) *File {
	if v := c.largestLocked(func(v *File) bool { return !v.failed }); v != nil {
		return v
	}
	if f.dirty > 0 {
		return f
	}
	return c.largestLocked(func(*File) bool { return true })
}

// largestLocked returns the file with most dirty bytes among those that fit.
func (c *Cache) largestLocked(fits func(*File) bool) *File {
	var best *File
	for f := range c.aging {
		if f.dirty > 0 && fits(f) && (best == nil || f.dirty > best.dirty) {
			best = f
		}
	}
	return best
}

// dirtied accounts for a file's dirty bytes and asks the background for help where there are many. c.mu is held.
func (c *Cache) dirtied(f *File, n int64) {
	f.dirty += n
	c.dirty += n
	if n <= 0 {
		c.roomLocked()
		return
	}
	c.ageLocked(f)
	if f.dirty > c.cfg.Window/pressureShare && !f.failed {
		c.enqueueLocked(f, wantData)
	}
	if c.dirty > c.cfg.Dirty/pressureShare {
		c.work.Signal()
	}
}

// ageLocked notes that a file has something to hand over from now on, unless it had already.
func (c *Cache) ageLocked(f *File) {
	if _, ok := c.aging[f]; ok {
		return
	}
	c.aging[f] = time.Now()
	if len(c.aging) == 1 {
		select {
		case c.wake <- struct{}{}:
		default: // awake already
		}
	}
}

// enqueueLocked asks the background for a flush of a file.
func (c *Cache) enqueueLocked(f *File, w want) {
	if c.closed {
		return
	}
	f.want |= w
	if !f.queued {
		f.queued = true
		c.queue = append(c.queue, f)
		c.work.Signal()
	}
}

// watchAge has files flushed that have been dirty for MaxAge, at the latest. It sleeps while nothing is dirty.
func (c *Cache) watchAge() {
	defer c.running.Done()
	tick := max(c.cfg.MaxAge/ticksPerAge, time.Millisecond)
	timer := time.NewTimer(tick)
	timer.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-c.wake:
		}
		for some := true; some; {
			timer.Reset(tick)
			select {
			case <-c.stop:
				timer.Stop()
				return
			case now := <-timer.C:
				some = c.enqueueAged(now.Add(tick - c.cfg.MaxAge)) // a tick early rather than a tick late
			}
		}
	}
}

// enqueueAged has the files flushed that have been dirty since a time or longer, and reports whether any file is dirty.
func (c *Cache) enqueueAged(since time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for f, t := range c.aging {
		if !t.After(since) {
			c.enqueueLocked(f, wantAll)
		}
	}
	return len(c.aging) > 0
}

// flushQueued is one background flusher.
func (c *Cache) flushQueued() {
	defer c.running.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		f, w := c.nextLocked()
		if f == nil {
			if c.closed {
				return
			}
			c.work.Wait()
			continue
		}
		c.mu.Unlock()
		var err error
		if w&wantAll != 0 {
			err = f.handOver()
		} else {
			err = f.handOverData()
		}
		if errors.Is(err, container.ErrClosed) {
			err = nil // its Close has dealt with everything
		}
		c.mu.Lock()
		if err != nil {
			f.sticky = err
			c.mu.Unlock() // the event comes after: who was told of the failure gets it from Flush
			c.cfg.Events.Emit(event.Event{Kind: event.Failed, Object: f.store.ID().String(), Offset: -1, Err: err, Note: "write-back"})
			c.mu.Lock()
		}
		if f.want != 0 && !c.closed {
			c.queue = append(c.queue, f)
		} else {
			f.queued = false
		}
	}
}

// nextLocked returns the next file to flush: the queue's first, or while all files together press, the one with most to write.
func (c *Cache) nextLocked() (*File, want) {
	if c.closed {
		return nil, 0
	}
	if len(c.queue) > 0 {
		f := c.queue[0]
		c.queue = c.queue[:copy(c.queue, c.queue[1:])]
		w := f.want
		f.want = 0
		return f, w
	}
	if c.dirty <= c.cfg.Dirty/pressureShare {
		return nil, 0
	}
	f := c.largestLocked(func(f *File) bool { return !f.failed && !f.queued })
	if f == nil {
		return nil, 0
	}
	f.queued = true
	return f, wantData
}
