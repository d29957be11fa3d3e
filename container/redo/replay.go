package redo

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// writeSize is how much is gathered for one write to a host file.
const writeSize = 1 << 20

// Config says which vault, and which journal. All of it stays the caller's.
type Config struct {
	Root    disk.Dir
	RootID  keys.ObjectID
	Names   *names.Codec
	Journal journal.Config
	Events  event.Sink
	// Salvage replays a journal that is damaged up to where it is, and puts its pieces aside in place of removing them. What is in a file may be newer than what
	// is left of the journal.
	Salvage bool
	// Doubtful: that the journal is the last session's is a guess, as the state that named it is lost.
	Doubtful bool
	// Better tells, in a vault whose journal is damaged or doubtful, whether a file is to stay as it stands on the host: more of it opens, or it is newer, than with
	// what the journal has of it. Neither is kept. nil: the journal counts.
	Better func(id keys.ObjectID, host, replayed disk.File) bool

	viewing bool // for a View: nothing is done to files
}

// Result says what a replay did.
type Result struct {
	Log       journal.Log
	Damage    *Damage // nil: none
	Files     int     // written to
	Made      int     // of these: that the host had not
	Unlinked  int     // had transactions, but no name any more
	Exchanges int     // that were not over
	Written   int64   // bytes
	Elapsed   time.Duration
}

// Replay does what an unclean end left undone: it brings every file to the state of its last transaction in the journal, makes that durable and removes
// the journal. Its steps are R1 to R9 of FORMAT.md section 13.2. Nobody else may have the vault.
//
// All of it can be done again, so that a cut at any instant, and any error, leaves a journal to replay, or none because all is done. Errors: ErrLost and
// ErrIncomplete, which a mount for reading only gets by; ErrMalformed, ErrKind; those of the host and of journal.Open.
func Replay(c Config) (Result, error) {
	start := time.Now()
	res, err := c.replay()
	if err != nil {
		return Result{}, fmt.Errorf("redo: replay: %w", err)
	}
	if res.Log.Transactions > 0 {
		res.Elapsed = time.Since(start)
		c.Events.Emit(event.Event{Kind: event.Repaired, Object: c.RootID.String(), Offset: -1, Note: res.String()})
	}
	return res, nil
}

func (r Result) String() string {
	s := fmt.Sprintf("replayed the journal: %d transactions, %d bytes written to %d files", r.Log.Transactions, r.Written, r.Files)
	if r.Made > 0 {
		s += fmt.Sprintf(", %d of them made", r.Made)
	}
	if r.Unlinked > 0 {
		s += fmt.Sprintf(", %d files had been unlinked", r.Unlinked)
	}
	if r.Exchanges > 0 {
		s += fmt.Sprintf(", %d exchanges of names finished", r.Exchanges)
	}
	return s + fmt.Sprintf(", in %v", r.Elapsed.Round(time.Millisecond))
}

func (c *Config) replay() (res Result, err error) {
	r, err := c.openJournal() // R1
	if err != nil {
		return res, err
	}
	defer r.Close()
	if err := r.SyncAll(); err != nil { // R2
		return res, err
	}
	x, err := c.makeIndex(r) // R3
	if err != nil {
		return res, err
	}
	switch {
	case x.log.Damaged() && !c.Salvage:
		return res, ErrLost
	case r.Pieces() == 0 && !x.log.Damaged() && !c.Doubtful:
		return res, nil
	}
	damage, err := c.damage(r, x)
	if err != nil {
		return res, err
	}
	for _, e := range x.exchanges { // R4
		if err := c.finish(e); err != nil {
			return res, fmt.Errorf("exchange %d: %w", e.ID, err)
		}
	}
	l, err := c.locate(x.order) // R5, with makeNames
	if err != nil {
		return res, err
	}
	res = Result{Log: x.log, Damage: damage, Exchanges: len(x.exchanges), Unlinked: l.unlinked + len(l.dropped)}
	made, err := c.makeNames(&l, &res)
	if err != nil {
		return res, err
	}
	if err := c.restoreAll(c.view(r, x), append(l.named, made...), &res); err != nil { // R6, R7
		return res, err
	}
	if err := disk.SyncTree(c.Root); err != nil { // R8
		return res, err
	}
	if damage != nil || c.Doubtful && c.Salvage {
		return res, r.SetAside()
	}
	return res, r.Remove() // R9
}

// makeNames takes away the names that files lost, and makes the files that the host lost. It returns these.
func (c *Config) makeNames(l *located, res *Result) (made []*file, err error) {
	for _, f := range l.dropped {
		if err := c.drop(f); err != nil {
			return nil, fmt.Errorf("file %s: remove it: %w", f.id, err)
		}
	}
	if err := unlessGone(c.Journal.Dir.Unlink(madeName)); err != nil { // of a replay that was cut
		return nil, err
	}
	dirs := map[string][]string{}
	for _, f := range l.lacking {
		ok, err := c.make(f, dirs)
		switch {
		case err != nil:
			return nil, fmt.Errorf("file %s: make it: %w", f.id, err)
		case ok:
			res.Made++
			made = append(made, f)
		default:
			res.Unlinked++
		}
	}
	return made, nil
}

// restoreAll brings files to their last states.
func (c *Config) restoreAll(v *View, files []*file, res *Result) error {
	res.Files = len(files)
	buf := make([]byte, writeSize)
	for _, f := range files {
		n, err := c.restore(v, f, buf)
		if err != nil {
			return fmt.Errorf("file %s: %w", f.id, err)
		}
		res.Written += n
	}
	return nil
}

// restore brings one file to its last state (R6, R7), and answers how many bytes it wrote. buf is scratch memory.
func (c *Config) restore(v *View, f *file, buf []byte) (written int64, err error) {
	err = c.inParent(f.path, f.id, func(d disk.Dir, name string) error {
		host, err := d.Open(name, disk.ReadWrite)
		if err != nil {
			return err
		}
		defer host.Close()
		if other, err := foreign(host, f.id); err != nil || other {
			if other {
				c.Events.Emit(event.Event{Kind: event.Damage, Object: f.id.String(), Offset: -1, Note: "another file stands under its name: what the journal has of it is not replayed"})
			}
			return err
		}
		if v.stays(f.id, host) {
			return nil
		}
		var before, after unix.Stat_t
		if err := host.Stat(&before); err != nil {
			return err
		}
		if f.length >= 0 { // first, as no image lies beyond: a full host has room again
			if err := host.Truncate(f.length); err != nil {
				return err
			}
		}
		if written, err = v.x.write(f, host, buf); err != nil {
			return err
		}
		// The host takes set-id bits away when a process writes that is not root's.
		if err = host.Stat(&after); err == nil && after.Mode != before.Mode {
			err = host.Chmod(before.Mode & 0o7777)
		}
		if err != nil || !f.timed {
			return err
		}
		return host.Utimes(&[2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, f.mtime})
	})
	return written, err
}

// write writes the last images of f, neighbours together.
func (x *index) write(f *file, host disk.File, buf []byte) (written int64, err error) {
	n, off := 0, int64(0) // gathered in buf, for that offset
	flush := func() error {
		if n == 0 {
			return nil
		}
		_, err := host.WriteAt(buf[:n], off)
		written += int64(n)
		n = 0
		return err
	}
	for _, e := range f.runs {
		for e.n > 0 {
			if n == len(buf) || off+int64(n) != e.off {
				if err := flush(); err != nil {
					return written, err
				}
			}
			if n == 0 {
				off = e.off
			}
			k := min(e.n, int64(len(buf)-n))
			if err := x.bulks[e.bulk].ReadAt(buf[n:n+int(k)], e.at); err != nil {
				return written, err
			}
			n += int(k)
			e.off, e.at, e.n = e.off+k, e.at+k, e.n-k
		}
	}
	return written, flush()
}
