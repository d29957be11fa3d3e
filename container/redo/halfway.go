package redo

import (
	"fmt"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// placed is where an object stands on the host that a View shows under another name: an exchange was on its way with it.
type placed struct {
	path []string // of the host directory
	dir  disk.Dir // that directory, open as long as the View is
	name string   // in it
	ino  uint64
	typ  uint8
	to   keys.ObjectID // the directory under which it shows
}

// finishAll notes what R4 would move. An exchange of which that cannot be found out shows as it stands.
func (s *shown) finishAll(all []*Exchange) {
	for _, e := range all {
		note := "exchange %d of two names was under way: it shows as if it were over"
		moved, err := s.finish(e)
		if err != nil {
			note = "exchange %d of two names may have been under way: names show as they stand"
		}
		if err != nil || moved {
			s.c.Events.Emit(event.Event{Kind: event.Info, Object: s.c.RootID.String(), Offset: -1, Err: err, Note: fmt.Sprintf(note, e.ID)})
		}
	}
	for name, p := range s.moved {
		if p == nil {
			continue
		}
		dir, err := s.c.descend(p.path)
		if err != nil {
			s.c.Events.Emit(event.Event{Kind: event.Failed, Object: s.c.RootID.String(), Offset: -1, Err: err, Note: "an object that was being exchanged does not show"})
			s.moved[name] = nil
			continue
		}
		p.dir = dir
		s.in[p.to] = append(s.in[p.to], listed{name, p.ino, p.typ})
	}
}

// finish is Config.finish of what shows, and answers whether it moved anything. On an error it did not.
func (s *shown) finish(e *Exchange) (any bool, err error) {
	open, err := s.c.underWay(e)
	if err != nil || !open {
		return false, err
	}
	moved := map[string]*placed{} // by this exchange
	at := func(path []string, name string) (p *placed, err error) {
		if p, known := moved[name]; known {
			return p, nil
		}
		if p, known := s.moved[name]; known {
			return p, nil
		}
		if path, err = s.c.findDir(path); err != nil {
			return nil, unlessStale(err)
		}
		err = s.c.within(path, func(d disk.Dir, _ keys.ObjectID) error {
			var st unix.Stat_t
			err := d.Stat(name, &st)
			if err == nil {
				p = &placed{path: path, name: name, ino: st.Ino, typ: uint8(st.Mode & unix.S_IFMT >> 12)} // DT_ values are S_IFMT's bits
			}
			return unlessGone(err)
		})
		return p, err
	}
	for _, step := range e.Steps {
		from, err := at(step.From, step.Old)
		if err != nil {
			return false, err
		}
		to, err := at(step.To, step.New)
		if err != nil {
			return false, err
		}
		if from == nil || to != nil {
			continue
		}
		p := *from
		if p.to, err = s.c.dirID(step.To); err != nil {
			return false, err
		}
		moved[step.Old], moved[step.New], any = nil, &p, true
	}
	for _, step := range e.Steps {
		old, err := at(step.From, step.Old)
		if err != nil {
			return false, err
		}
		if old == nil {
			moved[names.SidecarName(step.Old)] = nil
		}
	}
	maps.Copy(s.moved, moved)
	return any, nil
}

// close closes what finishAll opened.
func (s *shown) close() {
	for _, p := range s.moved {
		if p != nil && len(p.path) > 0 {
			p.dir.Close()
		}
	}
}
