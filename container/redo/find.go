package redo

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// errStale: what a path names is not there any more.
var errStale = errors.New("stale path")

// gone tells errors that say no more than that something else stands there, or nothing.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, disk.ErrNotRegular)
}

// dirID answers the object id of the directory that a path is of: the names say it, whether they are there or not.
func (c *Config) dirID(path []string) (keys.ObjectID, error) {
	id := c.RootID
	for _, name := range path {
		l, err := c.Names.Open(id, name)
		if err != nil || l.Type != names.Dir {
			return keys.ObjectID{}, errStale
		}
		id = l.ID
	}
	return id, nil
}

// descend opens the directory of a path; that of none is the root, which is not the caller's to close. errStale where the path does not lead there.
func (c *Config) descend(path []string) (disk.Dir, error) {
	d := c.Root
	for i, name := range path {
		sub, err := d.OpenDir(name)
		if i > 0 {
			d.Close()
		}
		if gone(err) {
			return nil, errStale
		}
		if err != nil {
			return nil, err
		}
		d = sub
	}
	return d, nil
}

// within opens the directory of a path and calls fn with it, open for the call. errStale where the path does not lead there.
func (c *Config) within(path []string, fn func(d disk.Dir, id keys.ObjectID) error) error {
	id, err := c.dirID(path)
	if err != nil {
		return err
	}
	d, err := c.descend(path)
	if err != nil {
		return err
	}
	if len(path) > 0 {
		defer d.Close()
	}
	return fn(d, id)
}

// inParent calls fn with the directory of a file's path and the file's name there, which is verified to be one of id. errStale where it is not, or
// there is no path.
func (c *Config) inParent(path []string, id keys.ObjectID, fn func(d disk.Dir, name string) error) error {
	if len(path) == 0 {
		return errStale
	}
	last := len(path) - 1
	return c.within(path[:last], func(d disk.Dir, parent keys.ObjectID) error {
		if l, err := c.Names.Open(parent, path[last]); err != nil || l.ID != id || !l.IsContainer() {
			return errStale
		}
		return fn(d, path[last])
	})
}

// located is what is to be done to files (R5).
type located struct {
	named    []*file // to be written to, at their paths
	lacking  []*file // to be made first
	dropped  []*file // to lose the name that they have, their path
	unlinked int     // nothing
}

// locate makes sure of the paths of all files that something is to be done to (R5). Files that are not at theirs are looked for
// in all names of the vault, and what is not among them is unlinked, or to be made. ErrIncomplete where not all could be read.
func (c *Config) locate(all []*file) (l located, err error) {
	there, missing := map[*file]bool{}, map[keys.ObjectID]bool{}
	for _, f := range all {
		if f.idle() && !f.removed {
			continue
		}
		if there[f], err = c.there(f); err != nil {
			return l, err
		}
		elsewhere := !there[f]
		if elsewhere && f.removed && !f.moved {
			elsewhere, err = c.astray(f)
		}
		if err != nil {
			return l, err
		}
		if elsewhere {
			missing[f.id] = true
		}
	}
	found := map[keys.ObjectID]*place{}
	if len(missing) > 0 {
		if found, err = c.walk(missing); err != nil {
			return l, err
		}
	}
	for _, f := range all {
		at := found[f.id]
		last := len(f.path) - 1
		switch {
		case f.idle() && !f.removed:
		case f.removed && there[f], f.removed && at != nil && last >= 0 && at.path[len(at.path)-1] == f.path[last]: // a name says its directory
			if at != nil {
				f.path = at.path
			}
			l.dropped = append(l.dropped, f)
		case there[f]:
			l.named = append(l.named, f)
		case at != nil: // one that was removed has a name that it had before: the host lost that it moved, and so the removal
			f.path = at.path
			l.named = append(l.named, f)
		case f.made != nil:
			l.lacking = append(l.lacking, f)
		default:
			l.unlinked++
		}
	}
	return l, nil
}

// astray reports whether the directory of a file is not where its path says.
func (c *Config) astray(f *file) (bool, error) {
	if len(f.path) == 0 {
		return true, nil
	}
	err := c.within(f.path[:len(f.path)-1], func(disk.Dir, keys.ObjectID) error { return nil })
	return errors.Is(err, errStale), unlessStale(err)
}

// place is where the walk found an object.
type place struct {
	path    []string
	ino     uint64
	foreign bool // it is another's by its header
}

// walk looks for containers and directories in all names of the vault: once, and to the end. A file that is another's by its header counts only where
// there is no other. The error wraps ErrIncomplete where a directory could not be read: then nothing is known of what was not found.
func (c *Config) walk(want map[keys.ObjectID]bool) (map[keys.ObjectID]*place, error) {
	found := map[keys.ObjectID]*place{}
	note := func(at *visited, foreign bool) {
		switch first := found[at.id]; {
		case first == nil, first.foreign && !foreign:
			found[at.id] = &place{at.path(), at.ino, foreign}
		case first.ino != at.ino && !foreign:
			c.Events.Emit(event.Event{Kind: event.Duplicate, Object: at.id.String(), Offset: -1, Note: "a second host object of this id is not replayed"})
		}
	}
	err := disk.Walk(c.Root, &visited{id: c.RootID}, func(d disk.Dir, at *visited, err error) (below []disk.Below[*visited], _ error) {
		if at.up != nil && gone(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if want[at.id] {
			note(at, false)
		}
		return below, d.List(func(name string, ino uint64, typ uint8) error {
			l, err := c.Names.Open(at.id, name)
			if err != nil || typ != unix.DT_UNKNOWN && uint32(typ)<<12 != l.HostMode() {
				return nil
			}
			switch next := (&visited{at, name, l.ID, ino}); {
			case l.Type == names.Dir:
				below = append(below, disk.Below[*visited]{Name: name, At: next})
			case l.IsContainer() && want[l.ID]:
				other, err := c.foreignAt(d, name, l.ID)
				if err != nil {
					return err
				}
				note(next, other)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return found, nil
}

// visited is an object of the walk. Its path is put together only where it is asked for: those of a deep tree are long.
type visited struct {
	up   *visited // nil: the root
	name string
	id   keys.ObjectID
	ino  uint64
}

func (v *visited) path() (path []string) {
	for ; v.up != nil; v = v.up {
		path = append(path, v.name)
	}
	slices.Reverse(path)
	return path
}
