package bulk

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cofferfs/coffer/container"
)

// counters are a Summary in the making.
type counters struct {
	files, skipped, dirs, others, failed, damaged, bytes, lost, reused, frames, done atomic.Int64 // frames: reused
	reading, writing, syncing                                                        atomic.Int64 // ns
}

// Summary counts what one Run did, and never what an earlier one did before. The names of the JSON fields are stable.
type Summary struct {
	Files       int64 `json:"files"`        // copied
	Skipped     int64 `json:"skipped"`      // finished before
	Directories int64 `json:"directories"`  // made, or found
	Others      int64 `json:"others"`       // symlinks, further hard links, FIFOs
	Failed      int64 `json:"failed"`       // not copied
	Damaged     int64 `json:"damaged"`      // of them, or salvaged, for damage
	Bytes       int64 `json:"bytes"`        // plain, copied
	LostBytes   int64 `json:"lost_bytes"`   // holes where data was
	Reused      int64 `json:"reused_bytes"` // of large files, copied by an earlier run
	Removed     int64 `json:"removed"`      // sources, once their copies were compared
	Kept        int64 `json:"kept"`         // of those that were to be removed
	// What the vault's containers had to do with it; all 0 where it was written or read through its mount.
	Segments     int64 `json:"segments"`
	Frames       int64 `json:"frames"`
	ReusedFrames int64 `json:"reused_frames"`
	VaultBytes   int64 `json:"vault_bytes"` // in and out of its files, metadata included
	// Seconds in each, summed over all that work at a time. Sealing and opening is on all cores, and a part of writing for an import, of reading for an export.
	Reading float64 `json:"reading_seconds"`
	Sealing float64 `json:"sealing_seconds"`
	Writing float64 `json:"writing_seconds"`
	Syncing float64 `json:"syncing_seconds"`
}

func (c *counters) summary() Summary {
	sec := func(ns *atomic.Int64) float64 { return time.Duration(ns.Load()).Seconds() }
	return Summary{
		Files: c.files.Load(), Skipped: c.skipped.Load(), Directories: c.dirs.Load(), Others: c.others.Load(), Failed: c.failed.Load(), Damaged: c.damaged.Load(),
		Bytes: c.bytes.Load(), LostBytes: c.lost.Load(), Reused: c.reused.Load(), ReusedFrames: c.frames.Load(),
		Reading: sec(&c.reading), Writing: sec(&c.writing), Syncing: sec(&c.syncing),
	}
}

// Add adds what an engine did for it.
func (s *Summary) Add(e container.Stats) {
	s.Segments += int64(e.Segments)
	s.Frames += int64(e.FramesOpened + e.FramesSealed)
	s.VaultBytes += e.BytesRead + e.BytesWritten
	s.Sealing += e.Crypto.Seconds()
}

// String is what was done, on one line.
func (s Summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d files copied, %d bytes; %d finished before; %d directories, %d links and others", s.Files, s.Bytes, s.Skipped, s.Directories, s.Others)
	more := func(n int64, format string, args ...any) {
		if n > 0 {
			fmt.Fprintf(&b, format, args...)
		}
	}
	more(s.Failed, "; %d not copied", s.Failed)
	more(s.Reused, "; went on behind %d bytes", s.Reused)
	more(s.Removed+s.Kept, "; %d sources removed, %d kept", s.Removed, s.Kept)
	more(s.LostBytes, "; %d bytes lost", s.LostBytes)
	return b.String()
}

// Effort is how it was done, on one line.
func (s Summary) Effort() string {
	seconds := fmt.Sprintf("%.1f s reading, %.1f s writing, %.1f s syncing", s.Reading, s.Writing, s.Syncing)
	if s.VaultBytes == 0 {
		return seconds
	}
	return fmt.Sprintf("%d segments, %d frames, %d more from an earlier run; %d bytes in the vault's files; %s; of it %.1f s sealing and opening, on all cores",
		s.Segments, s.Frames, s.ReusedFrames, s.VaultBytes, seconds, s.Sealing)
}
