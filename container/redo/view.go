package redo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// View shows the files of a vault as Replay would leave them, out of the journal, and changes nothing on the host. A nil View shows them as they are.
// Safe for concurrent use.
type View struct {
	r      *journal.Reader
	x      *index
	torn   bool
	damage *Damage
	shown  *shown // nil: names are as on the host

	better func(id keys.ObjectID, host, replayed disk.File) bool // nil: the journal counts
	mu     sync.Mutex                                            // guards stay
	stay   map[keys.ObjectID]bool                                // what better said
}

// view is what shows files as x has them.
func (c *Config) view(r *journal.Reader, x *index) *View {
	v := &View{r: r, x: x, torn: x.log.Torn, stay: map[keys.ObjectID]bool{}}
	if x.log.Damaged() || c.Doubtful {
		v.better = c.Better
	}
	return v
}

// Load reads the journal for a View, which is nil where there is nothing to replay. Where the journal has lost something what is left of it is shown, and Damage says so. Errors are those of Replay but for ErrLost.
func Load(c Config) (*View, error) {
	c.viewing = true
	r, err := c.openJournal()
	if err != nil {
		return nil, fmt.Errorf("redo: load: %w", err)
	}
	x, err := c.makeIndex(r)
	var damage *Damage
	if err == nil {
		damage, err = c.damage(r, x)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("redo: load: %w", err)
	}
	emit := func(note string) {
		c.Events.Emit(event.Event{Kind: event.Info, Object: c.RootID.String(), Offset: -1, Note: note})
	}
	if x.log.Transactions == 0 && damage == nil {
		r.Close()
		return nil, nil
	}
	emit(fmt.Sprintf("%d transactions of the journal are shown and not written", x.log.Transactions))
	v := c.view(r, x)
	v.damage, v.shown = damage, c.show(x)
	return v, nil
}

// Damage says what is wrong with the journal; nil: nothing, or v is nil.
func (v *View) Damage() *Damage {
	if v == nil {
		return nil
	}
	return v.damage
}

// Torn reports whether the end of the journal is torn, as a power cut leaves what was not synced yet.
func (v *View) Torn() bool { return v != nil && v.torn }

// stays reports whether the file id is to be left as it stands on the host.
func (v *View) stays(id keys.ObjectID, host disk.File) bool {
	if v.better == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	stay, known := v.stay[id]
	if !known {
		stay = v.better(id, host, &viewFile{File: host, v: v, f: v.x.files[id]})
		v.stay[id] = stay
	}
	return stay
}

// Close closes the pieces of the journal, and directories: files of the View cannot be read any more.
func (v *View) Close() {
	if v == nil {
		return
	}
	if v.shown != nil {
		v.shown.close()
	}
	v.r.Close()
}

// Stat makes what the host says about the container id what it would say after a replay: length and mtime.
func (v *View) Stat(id keys.ObjectID, st *unix.Stat_t) {
	if v == nil || v.x.files[id] == nil {
		return
	}
	f := v.x.files[id]
	st.Size = f.size(st.Size)
	if f.timed {
		st.Mtim = f.mtime
	}
}

// Wrap answers the container id, whose host file is f, as a replay would leave it. It takes f over where it does not answer f itself. What would change the
// file is EROFS.
func (v *View) Wrap(id keys.ObjectID, f disk.File) disk.File {
	if v == nil || v.x.files[id] == nil {
		return f
	}
	if other, err := foreign(f, id); err == nil && other || v.stays(id, f) {
		return f
	}
	return &viewFile{File: f, v: v, f: v.x.files[id]}
}

// viewFile is a file seen through a View. Xattrs are those of the host file.
type viewFile struct {
	disk.File
	v *View
	f *file
}

func (w *viewFile) Stat(st *unix.Stat_t) error {
	if err := w.File.Stat(st); err != nil {
		return err
	}
	w.v.Stat(w.f.id, st)
	return nil
}

func (w *viewFile) ReadAt(p []byte, off int64) (int, error) {
	var st unix.Stat_t
	if err := w.Stat(&st); err != nil {
		return 0, err
	}
	if off < 0 {
		return w.File.ReadAt(p, off) // which refuses
	}
	short := int64(len(p)) > st.Size-off
	if short {
		p = p[:max(0, st.Size-off)]
	}
	n, err := w.File.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	clear(p[n:])
	if err := w.overlay(p, off); err != nil {
		return 0, err
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

// overlay puts what images have of [off, off+len(p)) over p.
func (w *viewFile) overlay(p []byte, off int64) error {
	all, end := w.f.runs, off+int64(len(p))
	first := sort.Search(len(all), func(i int) bool { return all[i].off+all[i].n > off })
	for _, e := range all[first:] {
		if e.off >= end {
			break
		}
		from, to := max(e.off, off), min(e.off+e.n, end)
		if err := w.v.x.bulks[e.bulk].ReadAt(p[from-off:to-off], e.at+from-e.off); err != nil {
			return err
		}
	}
	return nil
}

func readOnly(op string) error { return &fs.PathError{Op: op, Err: unix.EROFS} }

func (w *viewFile) WriteAt([]byte, int64) (int, error) { return 0, readOnly("write") }
func (w *viewFile) Truncate(int64) error               { return readOnly("truncate") }
func (w *viewFile) Punch(int64, int64) error           { return readOnly("punch") }
func (w *viewFile) Allocate(int64, int64) error        { return readOnly("fallocate") }
func (w *viewFile) Chmod(uint32) error                 { return readOnly("chmod") }
func (w *viewFile) Chown(int, int) error               { return readOnly("chown") }
func (w *viewFile) Utimes(*[2]unix.Timespec) error     { return readOnly("utimes") }
func (w *viewFile) Setxattr(string, []byte, int) error { return readOnly("setxattr") }
func (w *viewFile) Removexattr(string) error           { return readOnly("removexattr") }
func (w *viewFile) Datasync() error                    { return nil }
func (w *viewFile) Sync() error                        { return nil }
