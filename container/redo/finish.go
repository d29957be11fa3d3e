package redo

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// finish takes the steps of an exchange that were not taken (R4). Their order is kept; each stands for itself.
func (c *Config) finish(e *Exchange) error {
	if open, err := c.underWay(e); err != nil || !open {
		return err
	}
	for _, s := range e.Steps {
		if err := c.between(s, c.take); err != nil {
			return err
		}
	}
	for _, s := range e.Steps {
		if err := c.between(s, c.dropSidecar); err != nil {
			return err
		}
	}
	return nil
}

// underWay reports whether each object that an exchange moves is where one of its steps takes it from or to. Else the exchange was over, and what came
// after it moved or removed them, or a directory of it.
func (c *Config) underWay(e *Exchange) (bool, error) {
	var seen []bool        // of each object
	of := map[string]int{} // new name of a step: which object
	for _, s := range e.Steps {
		k, moved := of[s.Old]
		if !moved {
			k, seen = len(seen), append(seen, false)
		}
		of[s.New] = k
		err := c.between(s, func(s stepAt) error {
			old, err := exists(s.from, s.Old)
			if err != nil {
				return err
			}
			new, err := exists(s.to, s.New)
			seen[k] = seen[k] || old || new
			return err
		})
		if err != nil {
			return false, unlessStale(err)
		}
	}
	return !slices.Contains(seen, false), nil
}

func exists(d disk.Dir, name string) (bool, error) {
	var st unix.Stat_t
	err := d.Stat(name, &st)
	return err == nil, unlessGone(err)
}

// stepAt is a step with its directories open.
type stepAt struct {
	Step
	from, to disk.Dir
	fromID   keys.ObjectID
}

// between calls fn with the directories of a step; errStale where one of them is nowhere any more.
func (c *Config) between(s Step, fn func(s stepAt) error) error {
	from, err := c.findDir(s.From)
	if err != nil {
		return err
	}
	to, err := c.findDir(s.To)
	if err != nil {
		return err
	}
	return c.within(from, func(from disk.Dir, id keys.ObjectID) error {
		return c.within(to, func(to disk.Dir, _ keys.ObjectID) error { return fn(stepAt{s, from, to, id}) })
	})
}

// findDir answers where the directory of a path is now: a rename may have made the path stale, then its id is looked for.
func (c *Config) findDir(path []string) ([]string, error) {
	err := c.within(path, func(disk.Dir, keys.ObjectID) error { return nil })
	if !errors.Is(err, errStale) {
		return path, err
	}
	id, err := c.dirID(path)
	if err != nil {
		return nil, err
	}
	found, err := c.walk(map[keys.ObjectID]bool{id: true})
	if err != nil {
		return nil, err
	}
	if at := found[id]; at != nil {
		return at.path, nil
	}
	return nil, errStale
}

// take renames where only the old name is there.
func (c *Config) take(s stepAt) error {
	old, err := exists(s.from, s.Old)
	if err != nil || !old {
		return err
	}
	if new, err := exists(s.to, s.New); err != nil || new {
		return err
	}
	return s.from.Rename(s.Old, s.to, s.New, 0) // not every host knows RENAME_NOREPLACE
}

// dropSidecar removes the sidecar of an old name that is gone.
func (c *Config) dropSidecar(s stepAt) error {
	if old, err := exists(s.from, s.Old); err != nil || old {
		return err
	}
	if l, err := c.Names.Open(s.fromID, s.Old); err != nil || !l.IsLong() {
		return nil
	}
	return unlessGone(s.from.Unlink(names.SidecarName(s.Old)))
}

func unlessGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

func unlessStale(err error) error {
	if errors.Is(err, errStale) {
		return nil
	}
	return err
}
