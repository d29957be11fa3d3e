package bulk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cofferfs/coffer/container/plain"
)

const (
	unit  = 256 << 10 // bytes of a piece: in the processor's cache still when it is written
	least = 4 << 10   // that is tried where reading fails
	ahead = 4 << 20   // how far is looked for the end of the data
)

// span is a range of bytes.
type span struct{ from, to int64 }

// copier copies the contents of one file, in pieces: each is read and written by one goroutine, so that none waits for another's, however many share the processors.
type copier struct {
	ctx     context.Context
	salvage func(err error) bool // says that an error means lost bytes, and that the copy goes on without them
	stats   *counters
	src     plain.File
	dst     *os.File
	points  *checkpoints // nil: none are made

	mu   sync.Mutex // guards what follows, and points
	room *sync.Cond // of mu: a piece is done
	next int64      // where the next piece begins
	end  int64      // up to where there is data from there on
	busy []int64    // where the pieces begin that are on their way, ascending
	lost []span
	err  error // the first one
}

// copy writes all data of the source from an offset on to the destination, which has nothing there, at its place, with holes where the source has some.
func (c *copier) copy(from int64) error {
	c.room, c.next, c.end = sync.NewCond(&c.mu), from, from
	var wg sync.WaitGroup
	for range min(int64(runtime.GOMAXPROCS(0)), (c.src.Size()-from-1)/unit) { // with this one enough to read from the disk while all processors have work
		wg.Go(c.work)
	}
	c.work()
	wg.Wait()
	if err := c.points.wait(); c.err == nil {
		c.err = err
	}
	c.lost = joined(c.lost)
	return c.err
}

// work copies pieces until there are no more.
func (c *copier) work() {
	var buf []byte
	for {
		at, n := c.claim()
		if n == 0 {
			return
		}
		if buf == nil {
			buf = make([]byte, min(unit, c.src.Size()))
		}
		c.done(at, n, c.piece(buf[:n], at))
	}
}

// claim returns the next piece; none after an error. One that is slow does not fall far behind the others: no resume point lies behind it.
func (c *copier) claim() (at int64, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && len(c.busy) > 0 && c.next-c.busy[0] >= ahead {
		c.room.Wait()
	}
	if c.err == nil {
		c.err = c.ctx.Err()
	}
	if c.err == nil && c.next == c.end && c.next < c.src.Size() {
		var from int64
		from, c.end, c.err = c.data(c.next)
		c.stats.done.Add(from - c.next)
		c.next = from
	}
	if c.err != nil || c.next == c.end {
		return 0, 0
	}
	at, n = c.next, int(min(unit-c.next%unit, c.end-c.next))
	c.next += int64(n)
	c.busy = append(c.busy, at)
	return at, n
}

// done counts a piece, and makes a resume point where one is due: all before the first piece that is on its way is written.
func (c *copier) done(at int64, n int, err error) {
	c.stats.done.Add(int64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	i, _ := slices.BinarySearch(c.busy, at)
	c.busy = slices.Delete(c.busy, i, i+1)
	c.room.Broadcast()
	if err == nil && c.err == nil {
		c.points.wrote(n)
		whole := c.next
		if len(c.busy) > 0 {
			whole = c.busy[0]
		}
		err = c.points.at(whole)
	}
	if c.err == nil {
		c.err = err
	}
}

// data returns the next range with data; an empty one at the end where none follows. Where damage keeps that from being known, all is taken for data.
func (c *copier) data(at int64) (from, to int64, err error) {
	if f, ok := c.src.(interface{ Fetch(off, n int64) }); ok && c.src.Size() > unit {
		f.Fetch(at, min(2*ahead, c.src.Size()-at)) // half of it while the other is copied
	}
	from, ok, err := c.src.NextData(at)
	if err == nil && !ok {
		return c.src.Size(), c.src.Size(), nil
	}
	if err == nil {
		to, err = c.src.NextHole(from, min(c.src.Size(), from+ahead))
	}
	if err != nil && c.salvage(err) {
		return at, min(c.src.Size(), at+unit), nil
	}
	return from, min(to, c.src.Size()), err
}

// piece copies one piece; where bytes of it are lost, what is around them.
func (c *copier) piece(p []byte, at int64) error {
	start := time.Now()
	n, err := c.src.ReadAt(p, at)
	c.stats.reading.Add(int64(time.Since(start)))
	switch {
	case n == len(p):
		return c.write(p, at)
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("at byte %d: %w: it became shorter while it was read", at+int64(n), io.ErrUnexpectedEOF)
	case !c.salvage(err):
		return err
	case len(p) <= least:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lost = append(c.lost, span{at, at + int64(len(p))})
		return nil
	}
	half := (len(p)/2 + least - 1) / least * least
	if err := c.piece(p[:half], at); err != nil {
		return err
	}
	return c.piece(p[half:], at+int64(half))
}

func (c *copier) write(p []byte, at int64) error {
	start := time.Now()
	_, err := c.dst.WriteAt(p, at)
	c.stats.writing.Add(int64(time.Since(start)))
	if err == nil {
		c.stats.bytes.Add(int64(len(p)))
	}
	return err
}

// joined sorts spans and makes one of those that touch.
func joined(spans []span) (all []span) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	for _, s := range spans {
		if n := len(all); n > 0 && all[n-1].to == s.from {
			all[n-1].to = s.to
			continue
		}
		all = append(all, s)
	}
	return all
}

// same reports whether dst has the contents of src, which is read and verified for it.
func same(ctx context.Context, dst io.ReaderAt, src plain.File) (bool, error) {
	a, b := make([]byte, min(unit, max(1, src.Size()))), make([]byte, min(unit, max(1, src.Size())))
	for at := int64(0); at < src.Size(); {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n := int(min(int64(len(a)), src.Size()-at))
		if k, err := src.ReadAt(a[:n], at); k < n {
			return false, err
		}
		if k, err := dst.ReadAt(b[:n], at); k < n {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return false, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return false, nil
		}
		at += int64(n)
	}
	return true, nil
}
