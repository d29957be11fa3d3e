package fs

import (
	"runtime"
	"sync"
	"time"
)

// turnEvery is how often a place that runs Go code gives its goroutine a new turn: before the 10 ms are over after which the runtime thinks that it hangs.
const turnEvery = 8 * time.Millisecond

// turns remembers for each of the runtime's places (P) when that was last: a pool keeps what it has by place.
type turns struct{ pool sync.Pool }

// take yields to the scheduler where the goroutine's place has run without that for turnEvery. now is the time on any clock of the caller's.
//
// A goroutine that serves requests never waits but in system calls, so that the runtime (sysmon in Go 1.26) sees one turn without an end: after 10 ms it takes the
// place from the thread, sends that a signal, and then looks every 20 µs at what goes on, for as long as there are requests. That alone was an eighth to a
// quarter of the daemon's processor time while files were made.
func (t *turns) take(now time.Duration) {
	last, _ := t.pool.Get().(*time.Duration)
	if last == nil {
		last = new(time.Duration)
	}
	due := now-*last >= turnEvery
	if due {
		*last = now
	}
	t.pool.Put(last)
	if due {
		runtime.Gosched()
	}
}
