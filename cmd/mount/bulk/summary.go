package bulk

import (
	"fmt"
	"sync/atomic"
	"time"
)

// counters are a Summary in the making.
type counters struct {
	files, skipped, dirs, others, failed, damaged, bytes, lost, reused, done atomic.Int64
	reading, writing, syncing                                                atomic.Int64 // ns
}

// Summary counts what one Run did. The names of the JSON fields are stable.
type Summary struct {
	Files       int64 `json:"files"`        // copied
	Skipped     int64 `json:"skipped"`      // finished before
	Directories int64 `json:"directories"`  // made, or found
	Others      int64 `json:"others"`       // symlinks, further hard links, FIFOs
	Failed      int64 `json:"failed"`       // not copied
	Damaged     int64 `json:"damaged"`      // of them, or salvaged, for damage
	Bytes       int64 `json:"bytes"`        // written
	LostBytes   int64 `json:"lost_bytes"`   // holes where data was
	Reused      int64 `json:"reused_bytes"` // of large files, written by an earlier import
	Removed     int64 `json:"removed"`      // sources, once their copies were compared
	Kept        int64 `json:"kept"`         // of those that were to be removed
	// Seconds in each, summed over all that work at a time. Writing of an import is sealing, too.
	Reading float64 `json:"reading_seconds"`
	Writing float64 `json:"writing_seconds"`
	Syncing float64 `json:"syncing_seconds"`
}

func (c *counters) summary() Summary {
	sec := func(ns *atomic.Int64) float64 { return time.Duration(ns.Load()).Seconds() }
	return Summary{
		Files: c.files.Load(), Skipped: c.skipped.Load(), Directories: c.dirs.Load(), Others: c.others.Load(), Failed: c.failed.Load(), Damaged: c.damaged.Load(),
		Bytes: c.bytes.Load(), LostBytes: c.lost.Load(), Reused: c.reused.Load(), Reading: sec(&c.reading), Writing: sec(&c.writing), Syncing: sec(&c.syncing),
	}
}

// String is what was done, on one line.
func (s Summary) String() string {
	text := fmt.Sprintf("%d files copied, %d bytes; %d finished before; %d directories, %d links and others", s.Files, s.Bytes, s.Skipped, s.Directories, s.Others)
	if s.Failed > 0 {
		text += fmt.Sprintf("; %d not copied", s.Failed)
	}
	if s.Reused > 0 {
		text += fmt.Sprintf("; went on behind %d bytes", s.Reused)
	}
	if s.Removed > 0 || s.Kept > 0 {
		text += fmt.Sprintf("; %d sources removed, %d kept", s.Removed, s.Kept)
	}
	if s.LostBytes > 0 {
		text += fmt.Sprintf("; %d bytes lost", s.LostBytes)
	}
	return text
}
