package check

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cofferfs/coffer/container/names"
)

// Kind is the class of a finding. The values are stable.
type Kind string

const (
	// Damage: stored bytes, or a name, are not what was written.
	Damage Kind = "damage"
	// Pending: it looks damaged, and may be what a journal that waits to be replayed puts right.
	Pending Kind = "pending"
	// Leftover: what an unclean session or an interrupted repair left. It is hidden, or put right at its first use.
	Leftover Kind = "leftover"
	// Foreign: a host object that nobody's name describes. A mount ignores it.
	Foreign Kind = "foreign"
	// Unchecked: the host or this program did not allow a look at it.
	Unchecked Kind = "unchecked"
)

// Finding is one thing that is wrong with a vault.
type Finding struct {
	Kind   Kind   `json:"kind"`
	Path   string `json:"path,omitempty"`   // plain, below the vault's root; absent without a key
	Host   string `json:"host"`             // the host object, below the vault
	Hidden bool   `json:"hidden,omitempty"` // the object shows under no plain name: Path is that of its directory
	// Bytes is the range of plain bytes that cannot be read; nil where the object as a whole is meant.
	Bytes *Range `json:"bytes,omitempty"`
	// Segment and Frame say where Bytes begin, in the words of FORMAT.md.
	Segment *uint64 `json:"segment,omitempty"`
	Frame   *int    `json:"frame,omitempty"`
	What    string  `json:"what"`
	Hint    string  `json:"hint,omitempty"`
}

// Range is the plain bytes From up to, not including, To of an object of Size.
type Range struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
	Size int64 `json:"size"`
}

// Progress counts what was looked at so far. It may be read while a check runs.
type Progress struct {
	Objects atomic.Int64
	Bytes   atomic.Int64 // plain, in containers
}

// Summary counts what a check looked at and found.
type Summary struct {
	Directories int64 `json:"directories"`
	Objects     int64 `json:"objects"`    // directories included
	Bytes       int64 `json:"bytes"`      // plain, that proved right
	LostBytes   int64 `json:"lost_bytes"` // in findings of damage
	Damage      int   `json:"damage"`
	Pending     int   `json:"pending"`
	Leftover    int   `json:"leftover"`
	Foreign     int   `json:"foreign"`
	Unchecked   int   `json:"unchecked"`
}

// report collects findings from several goroutines.
type report struct {
	mu    sync.Mutex // guards all below, and calls of found
	sum   Summary
	found func(Finding)
}

func (r *report) add(f Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch f.Kind {
	case Damage:
		r.sum.Damage++
	case Pending:
		r.sum.Pending++
	case Leftover:
		r.sum.Leftover++
	case Foreign:
		r.sum.Foreign++
	case Unchecked:
		r.sum.Unchecked++
	}
	if f.Bytes != nil && f.Kind == Damage {
		r.sum.LostBytes += f.Bytes.To - f.Bytes.From
	}
	if r.found != nil {
		r.found(f)
	}
}

func (r *report) count(do func(s *Summary)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do(&r.sum)
}

// below joins a path and a name.
func below(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// conflictMarks are what tools that synchronize directories put into the names of copies they could not merge.
var conflictMarks = []string{"conflicted copy", "conflict copy", "sync-conflict", "case conflict", "in konflikt stehende kopie", "-conflict-", "(conflict"}

// foreignHint says what a host name that is nobody's probably is.
func foreignHint(host string) string {
	lower := strings.ToLower(host)
	for _, mark := range conflictMarks {
		if strings.Contains(lower, mark) {
			return "a conflict copy of a tool that synchronizes the vault; under its first name it may be the better version: compare both, then remove this one"
		}
	}
	for i := len(host); i > 0; i-- {
		if i < len(host) && names.HasForm(host[:i]) {
			return "a sealed name with something added: a copy, or the temporary file of a tool"
		}
	}
	return ""
}
