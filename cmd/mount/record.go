package main

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/fs"
	"github.com/cofferfs/coffer/internal/event"
)

// recentEvents is how many findings and failed requests a daemon remembers.
const recentEvents = 256

// recentEvent is a finding of the layers, or a request that failed for a reason of ours. The names of the JSON fields are stable.
type recentEvent struct {
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`             // that of event.Event, or "request"
	What   string    `json:"what,omitempty"`   // the request, or the finding's note
	Path   string    `json:"path,omitempty"`   // plain, from the root of the mount; for the owner only
	Object string    `json:"object,omitempty"` // host name or object id
	Offset int64     `json:"offset"`           // plain bytes, -1: no place in a file
	Error  string    `json:"error,omitempty"`
}

// recorder keeps the last events and counts all of them by kind. Plain paths in it stay in memory and go to the owner, never to a log.
// It is safe for concurrent use.
type recorder struct {
	mu    sync.Mutex // guards what follows
	ring  [recentEvents]recentEvent
	total int // events ever added; the next one goes to total % recentEvents
	kinds map[string]uint64
}

func (r *recorder) add(e recentEvent) {
	e.Time = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.total%recentEvents] = e
	r.total++
	if r.kinds == nil {
		r.kinds = map[string]uint64{}
	}
	r.kinds[e.Kind]++
}

// sink records what the layers find. It resolves no path: locks may be held.
func (r *recorder) sink(e event.Event) {
	rec := recentEvent{Kind: string(e.Kind), What: e.Note, Object: e.Object, Offset: e.Offset}
	if e.Err != nil {
		rec.Error = e.Err.Error()
	}
	r.add(rec)
}

// failed records a request. Its error's text is in the log.
func (r *recorder) failed(f fs.Failure) {
	r.add(recentEvent{Kind: "request", What: f.Op, Path: f.Path, Offset: f.Offset, Error: unix.ErrnoName(f.Errno)})
}

// snapshot returns the last events, oldest first, and the counts by kind.
func (r *recorder) snapshot() (recent []recentEvent, kinds map[string]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	recent = []recentEvent{}
	for i := max(0, r.total-recentEvents); i < r.total; i++ {
		recent = append(recent, r.ring[i%recentEvents])
	}
	kinds = map[string]uint64{}
	for k, n := range r.kinds {
		kinds[k] = n
	}
	return recent, kinds
}
