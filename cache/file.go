package cache

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cofferfs/coffer/container"
)

// Hooks are calls from the cache back to the owner of a file.
type Hooks struct {
	// Flushed runs after each hand-over that wrote to the host file, which has changed its times. It runs without any lock of
	// the cache, on the goroutine that handed over: that of a Flush, Sync or Close, of a write that had to make room, or one in the background. It
	// must not wait for another call into the same file.
	Flushed func()
}

// File is one open file. All methods may be called concurrently; only one Close has an effect, and other calls fail with
// container.ErrClosed after it.
type File struct {
	c           *Cache
	store       store
	hooks       Hooks
	shelf       *shelf
	frames      int // per segment
	frameSize   int
	segmentSize int64
	maxSize     int64

	flushMu sync.Mutex   // one hand-over at a time; see doc.go
	rw      sync.RWMutex // shared: reads and writes; exclusive: Truncate, Discard, Close
	closed  bool         // written with flushMu and rw held, read with either
	closing bool         // written with rw held: no more changes, so that the Flush of Close is the last

	// size is the plain size, dirty data included, and never below the store's. It only grows but in Truncate, and a write grows it under the segment's mu
	// after its frames are marked dirty: whoever takes dirty frames first and reads the size then has one that covers them.
	size atomic.Int64

	// Cache.mu guards the fields below.
	segs      map[uint64]*segment
	dirtySegs map[uint64]*segment // those with pending frames
	dirty     int64               // bytes, as Cache.dirty
	reserved  int64               // bytes, as Cache.reserved
	failed    bool                // the last WriteFrames failed: no background flush until the timer's
	sticky    error               // of a hand-over that no caller has seen
	queued    bool                // in Cache.queue or with a flusher
	want      want                // what the background is asked for
}

// want says what a background flush is to do.
type want uint8

const (
	wantData want = 1 << iota // hand the dirty frames to the container
	wantAll                   // and flush the container
)

// Container is the container behind the file.
func (f *File) Container() *container.File {
	st, _ := f.store.(*container.File) // not one only in tests
	return st
}

// Size is the plain size in bytes, with all that was written so far.
func (f *File) Size() int64 { return f.size.Load() }

// Dirty reports whether a Flush would have something to do.
func (f *File) Dirty() bool {
	f.c.mu.Lock()
	dirty := f.dirty > 0
	f.c.mu.Unlock()
	return dirty || f.store.Size() != f.Size() || f.store.Dirty()
}

// Close flushes, frees the file's cached frames and closes the container, the last two even where a step before failed. The error is the
// first one; after an error what was dirty is lost. Changes fail from its beginning on: none is accepted that its Flush may miss.
func (f *File) Close() error {
	f.rw.Lock()
	f.closing = true
	f.rw.Unlock()
	err := f.Flush()
	f.flushMu.Lock()
	defer f.flushMu.Unlock()
	f.rw.Lock()
	defer f.rw.Unlock()
	if f.closed {
		return container.ErrClosed
	}
	f.closed = true
	f.forget()
	if cerr := f.store.Close(); err == nil {
		err = cerr
	}
	return err
}

// Abandon gives up a file that nobody can read again, and drops what was not handed over. The caller calls free once: it closes the container, and with that
// gives back what the file takes on the host, which may take long.
func (f *File) Abandon() (free func() error) {
	f.rw.Lock()
	f.closing = true
	f.rw.Unlock()
	f.flushMu.Lock()
	defer f.flushMu.Unlock()
	f.rw.Lock()
	defer f.rw.Unlock()
	if f.closed {
		return func() error { return container.ErrClosed }
	}
	f.closed = true
	f.forget()
	f.store.Abandon()
	return f.store.Close
}

// forget takes everything of the file out of the cache. The caller holds flushMu and rw exclusively, so no segment is in use.
func (f *File) forget() {
	c := f.c
	c.mu.Lock()
	var chain *segment
	for _, s := range f.segs {
		c.unlinkLocked(s)
		c.clean -= int64(s.held-s.pending) * int64(f.frameSize)
		s.next, chain = chain, s
	}
	c.dirtied(f, -f.dirty)
	clear(f.dirtySegs)
	delete(c.files, f)
	delete(c.aging, f)
	for i, q := range c.queue {
		if q == f {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			break
		}
	}
	c.mu.Unlock()
	recycleAll(chain)
}

// frameStart is the plain offset of a frame.
func (f *File) frameStart(segment uint64, frame int) int64 {
	return int64(segment)*f.segmentSize + int64(frame)*int64(f.frameSize)
}

// frameRange returns the frames of a segment that [off, end) touches; the range lies within the segment.
func (f *File) frameRange(segment uint64, off, end int64) (from, to int) {
	start := f.frameStart(segment, 0)
	return int((off - start) / int64(f.frameSize)), int((end-start-1)/int64(f.frameSize)) + 1
}

// cover returns the part of a frame, as offsets within it, that [off, end) covers.
func (f *File) cover(start, off, end int64) (from, to int) {
	return int(max(off, start) - start), int(min(end, start+int64(f.frameSize)) - start)
}

// checkRange refuses what no file of this geometry can hold.
func (f *File) checkRange(off, n int64) error {
	if off < 0 || n < 0 || n > f.maxSize || off > f.maxSize-n {
		return fmt.Errorf("cache: %d bytes at %d of a file of at most %d: %w", n, off, f.maxSize, container.ErrTooLarge)
	}
	return nil
}

// changeable is checked by every change, under rw.
func (f *File) changeable() error {
	switch {
	case f.closing:
		return container.ErrClosed
	case f.store.ReadOnly():
		return container.ErrReadOnly
	}
	return nil
}
