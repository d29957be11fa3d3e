// Package event carries findings that have no request to answer: tampering met on the way, leftovers of a crash, work in
// the background that failed. Layers below fs report here and log nothing themselves; cmd/mount provides the sink.
package event

// Kind names the class of a finding. The values are stable: they appear in logs and machine-readable output.
type Kind string

const (
	// Damage: stored bytes are not what was sealed. Reads of them answer EIO.
	Damage Kind = "damage"
	// Foreign: a host object that no authentic name describes; it is ignored.
	Foreign Kind = "foreign"
	// Duplicate: a second host inode under one object id; it is refused.
	Duplicate Kind = "duplicate"
	// Loser: an older link under a plain name that a newer one took over; hidden.
	Loser Kind = "loser"
	// Repaired: a leftover of an unclean session was put right.
	Repaired Kind = "repaired"
	// Failed: work in the background failed and will be answered at the next request.
	Failed Kind = "failed"
	// Info: a step of normal life that an operator wants to see.
	Info Kind = "info"
)

// Event is one finding. Object is the host name or the object id of what it is about, never a plain name; Offset is a plain
// offset in bytes, -1 where there is none.
type Event struct {
	Kind   Kind
	Object string
	Offset int64
	Err    error
	Note   string
}

// Sink takes events. It must be safe for concurrent use and must not block for long.
type Sink func(Event)

// Emit calls the sink; a nil sink drops the event.
func (s Sink) Emit(e Event) {
	if s != nil {
		s(e)
	}
}
