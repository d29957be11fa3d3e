package container

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
)

// ioUnit is the most ciphertext, in bytes, that one task reads or writes in one host call; no group run is longer than 4 MiB, and
// shorter tasks spread over more cores.
const ioUnit = 256 << 10

// readUnit is the same of a read: what the host puts into the buffer is still in the processor's cache when it is opened.
const readUnit = 64 << 10

// aloneUnit is how many bytes are sealed in less time than a helper takes to wake up.
const aloneUnit = 64 << 10

// pool is the frame pool: one per process, shared by reads, write-back and bulk work. It owns no goroutines: a request runs its
// tasks itself and borrows helpers while fewer than the limit are at work, so nothing outlives its work and a small
// request pays for no hand-over. Requests count too: where they are as many as processors, helpers would only take turns with them.
type pool struct {
	workers chan struct{} // one token for each that is at work, requests beyond the limit excepted
	scratch chan *scratch
	buffers chan []byte // ciphertext only, readUnit and a tag each, from which the host can read directly
	sealed  [ioUnit / BlockSize]sync.Pool
	lent    atomic.Int64 // bytes of sealed buffers in use
}

// sealed is the ciphertext of a run. A transaction may keep it for long: it is as long as the run, in whole blocks, and has no room for a tag, with which the
// runtime would take up to a quarter more. Those in the pool that are not used for a while are the garbage collector's.
type sealed struct {
	b    []byte
	refs atomic.Int32 // images cut from it
}

func newPool(workers int) *pool {
	return &pool{
		workers: make(chan struct{}, workers),
		scratch: make(chan *scratch, 2*workers+2),
		buffers: make(chan []byte, 2*workers+4),
	}
}

func (p *pool) getScratch() *scratch {
	select {
	case s := <-p.scratch:
		return s
	default:
		return &scratch{}
	}
}

func (p *pool) putScratch(s *scratch) {
	select {
	case p.scratch <- s:
	default:
	}
}

// getBuffer returns a buffer of n bytes, n at most readUnit, with room for a tag behind them.
func (p *pool) getBuffer(n int) []byte {
	select {
	case b := <-p.buffers:
		return b[:n]
	default:
		return disk.DirectBuffer(readUnit + suite.TagSize)[:n]
	}
}

func (p *pool) putBuffer(b []byte) {
	select {
	case p.buffers <- b:
	default:
	}
}

// getSealed returns a buffer for a run of n bytes, n from 1 to ioUnit.
func (p *pool) getSealed(n int) *sealed {
	blocks := (n + BlockSize - 1) / BlockSize
	s, _ := p.sealed[blocks-1].Get().(*sealed)
	if s == nil {
		s = &sealed{b: make([]byte, blocks*BlockSize)}
	}
	s.b = s.b[:n]
	p.lent.Add(int64(cap(s.b)))
	return s
}

// putSealed takes a buffer back that nothing refers to any more.
func (p *pool) putSealed(s *sealed) {
	p.lent.Add(-int64(cap(s.b)))
	p.sealed[cap(s.b)/BlockSize-1].Put(s)
}

// run calls task(i) for i from 0 to n−1 on this goroutine and on helpers, and returns the error of the lowest i that failed: tasks
// above it may then have been left out, tasks below it have all run. A panic in a task is that task's error.
func (p *pool) run(n int, task func(i int, s *scratch) error) error {
	if n == 1 {
		return p.runAlone(n, task)
	}
	var (
		next   atomic.Int64
		lowest atomic.Int64 // index of the lowest failed task, n while none
		mu     sync.Mutex
		first  error
		wg     sync.WaitGroup
	)
	lowest.Store(int64(n))
	work := func() {
		s := p.getScratch()
		defer p.putScratch(s)
		for {
			i := next.Add(1) - 1
			if i >= int64(n) || i > lowest.Load() {
				return
			}
			if err := guard(int(i), s, task); err != nil {
				mu.Lock()
				if i < lowest.Load() {
					lowest.Store(i)
					first = err
				}
				mu.Unlock()
			}
		}
	}
	if p.join() {
		defer p.leave()
	}
	for helpers := 0; helpers < n-1 && p.join(); helpers++ {
		wg.Go(func() {
			defer p.leave()
			work()
		})
	}
	work()
	wg.Wait()
	return first
}

// runAlone is run without helpers, for what takes less time than to wake one up. It stops at the first error.
func (p *pool) runAlone(n int, task func(i int, s *scratch) error) error {
	s := p.getScratch()
	defer p.putScratch(s)
	for i := range n {
		if err := guard(i, s, task); err != nil {
			return err
		}
	}
	return nil
}

// join counts one more goroutine at work; it answers false where as many are as may be.
func (p *pool) join() bool {
	select {
	case p.workers <- struct{}{}:
		return true
	default:
		return false
	}
}

func (p *pool) leave() { <-p.workers }

func guard(i int, s *scratch, task func(int, *scratch) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in a frame worker: %v\n%s", r, debug.Stack())
		}
	}()
	return task(i, s)
}
