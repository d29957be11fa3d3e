package cache

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/internal/event"
)

// Defaults of Config.
const (
	DefaultClean  = 16 << 20
	DefaultDirty  = 32 << 20
	DefaultWindow = 8 << 20
	DefaultMaxAge = 5 * time.Second
)

const (
	// batchBytes is the most plaintext that one WriteFrames takes: enough for every worker, little enough that a writer who waits for
	// room, or a truncate, does not wait long.
	batchBytes = 1 << 20
	// pressureShare: a background flush starts when this share of a window, or of the limit for all files, is dirty.
	pressureShare = 4
	// flushers is how many files are flushed in the background at a time. Sealing runs in the engine's pool; more flushers only overlap waits for
	// the host.
	flushers = 4
	// ticksPerAge is how often the age of dirty files is looked at within MaxAge.
	ticksPerAge = 8
)

// Config is what a cache is made of. Zero values stand for the defaults; Clean below 0 for no clean frames at all.
type Config struct {
	Clean  int64         // bytes of clean frames kept
	Dirty  int64         // bytes of dirty frames at most, all files together
	Window int64         // bytes of dirty frames at most, per file
	MaxAge time.Duration // after which a background flush takes what was written
	Events event.Sink    // failures in the background
}

// Cache is the plaintext cache of one mount. All methods may be called concurrently.
type Cache struct {
	cfg     Config
	through int64 // throughBytes, but in tests
	stop    chan struct{}
	wake    chan struct{} // something became dirty after nothing was
	running sync.WaitGroup

	hits, misses, bypassed atomic.Uint64

	mu       sync.Mutex // guards what follows, and the fields of files and segments that say so
	files    map[*File]struct{}
	aging    map[*File]time.Time // files with something to hand over, and since when
	lru      *simplelru.LRU[*segment, struct{}]
	shelves  map[int]*shelf // by frame size
	clean    int64          // bytes of frames present and neither dirty nor in flight
	dirty    int64          // bytes of frames dirty or in flight, copies beside frames in flight included
	reserved int64          // bytes that admitted writers may yet make dirty
	room     sync.Cond      // dirty or reserved fell; for writers in reserve
	waiting  int            // of them
	queue    []*File        // to be flushed in the background
	work     sync.Cond      // the queue grew, dirty passed the pressure share, or closed
	batches  []*batch       // free ones
	closed   bool
}

// Stats is a snapshot of the counters.
type Stats struct {
	Hits     uint64 // frames that reads took from the cache
	Misses   uint64 // frames loaded into the cache
	Bypassed uint64 // runs of whole frames read past the cache
	Dirty    int64  // bytes not yet handed over
	Clean    int64  // bytes of clean frames
}

// New returns an empty cache and starts its few background goroutines, which Close ends.
func New(cfg Config) *Cache {
	set := func(v *int64, def int64) {
		if *v <= 0 {
			*v = def
		}
	}
	if cfg.Clean == 0 {
		cfg.Clean = DefaultClean
	}
	cfg.Clean = max(cfg.Clean, 0)
	set(&cfg.Dirty, DefaultDirty)
	set(&cfg.Window, DefaultWindow)
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = DefaultMaxAge
	}
	// The LRU never evicts by itself: it counts members, and the budget is in bytes. A positive size is its one condition.
	lru, _ := simplelru.NewLRU[*segment, struct{}](math.MaxInt, nil)
	c := &Cache{
		cfg: cfg, through: throughBytes, lru: lru, stop: make(chan struct{}), wake: make(chan struct{}, 1),
		files: map[*File]struct{}{}, aging: map[*File]time.Time{}, shelves: map[int]*shelf{},
	}
	c.room.L, c.work.L = &c.mu, &c.mu
	c.running.Add(1 + flushers)
	go c.watchAge()
	for range flushers {
		go c.flushQueued()
	}
	return c
}

// Open puts a container behind the cache, which owns it from here on: File.Close closes it. A container must not be opened twice.
func (c *Cache) Open(f *container.File, h Hooks) *File { return c.open(f, h) }

func (c *Cache) open(st store, h Hooks) *File {
	g := st.Geometry()
	f := &File{
		c: c, store: st, hooks: h, frames: g.Frames, frameSize: g.FrameSize, segmentSize: int64(g.SegmentSize), maxSize: g.MaxSize(),
		segs: map[uint64]*segment{}, dirtySegs: map[uint64]*segment{},
	}
	f.size.Store(st.Size())
	c.mu.Lock()
	defer c.mu.Unlock()
	f.shelf = c.shelves[g.FrameSize]
	if f.shelf == nil {
		f.shelf = newShelf(g.FrameSize, c.cfg.Window)
		c.shelves[g.FrameSize] = f.shelf
	}
	c.files[f] = struct{}{}
	if st.Dirty() {
		c.ageLocked(f) // a new container has a header to write
	}
	return f
}

// FlushAll flushes every open file and returns the first error of each, joined.
func (c *Cache) FlushAll() error {
	c.mu.Lock()
	files := make([]*File, 0, len(c.files))
	for f := range c.files {
		files = append(files, f)
	}
	c.mu.Unlock()
	var errs []error
	for _, f := range files {
		if err := f.Flush(); err != nil && !errors.Is(err, container.ErrClosed) { // closed meanwhile: its Close has answered
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close ends the timer and the background flushes and waits for those under way. It flushes nothing: FlushAll first, or close the files.
// Files still open keep working, without background. An error says that dirty data is left.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return container.ErrClosed
	}
	c.closed = true
	c.work.Broadcast()
	c.mu.Unlock()
	close(c.stop)
	c.running.Wait()
	if n := c.Stats().Dirty; n > 0 {
		return fmt.Errorf("cache: closed with %d bytes not handed over", n)
	}
	return nil
}

// Stats returns the counters.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Hits: c.hits.Load(), Misses: c.misses.Load(), Bypassed: c.bypassed.Load(), Dirty: c.dirty, Clean: c.clean}
}
