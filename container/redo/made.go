package redo

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// there reports whether a regular file stands at the path of f, which is one of it, and is not another's.
func (c *Config) there(f *file) (bool, error) {
	err := c.inParent(f.path, f.id, func(d disk.Dir, name string) error {
		var st unix.Stat_t
		if err := d.Stat(name, &st); err != nil && !gone(err) {
			return err
		} else if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return errStale
		}
		other, err := c.foreignAt(d, name, f.id)
		if other {
			return errStale
		}
		return err
	})
	return err == nil, unlessStale(err)
}

// make makes a new file that the host has nowhere, empty, and reports whether it did: where its directory is gone, the file went before. A directory that
// was moved is looked for by its id, once: dirs keeps where directories are now, nil for one that is nowhere.
func (c *Config) make(f *file, dirs map[string][]string) (made bool, err error) {
	last := len(f.path) - 1
	was := strings.Join(f.path[:last], "/")
	dir, known := dirs[was]
	if !known {
		if dir, err = c.findDir(f.path[:last]); unlessStale(err) != nil {
			return false, err
		}
		dirs[was] = dir
	}
	if dir == nil {
		return false, nil
	}
	path := append(slices.Clone(dir), f.path[last])
	err = c.inParent(path, f.id, func(d disk.Dir, name string) error {
		if taken, err := exists(d, name); err != nil || taken {
			if taken {
				c.Events.Emit(event.Event{Kind: event.Damage, Object: f.id.String(), Offset: -1, Note: "something else stands under the name of a file that the journal makes: it is not made"})
				err = errStale
			}
			return err
		}
		host, err := c.Journal.Dir.Create(madeName, f.made.Mode)
		if err != nil {
			return err
		}
		if err := errors.Join(c.own(f, host), host.Close()); err != nil {
			return err
		}
		return c.Journal.Dir.Rename(madeName, d, name, 0)
	})
	if err != nil {
		return false, unlessStale(err)
	}
	f.path = path
	return true, nil
}

// madeName is what a file is called, beside the journal, until it has owner and mode, durably: no cut leaves its name without.
const madeName = "made.tmp"

// own gives a file that was just made owner and mode. A process that may not give it away keeps it.
func (c *Config) own(f *file, host disk.File) error {
	var st unix.Stat_t
	if err := host.Stat(&st); err != nil {
		return err
	}
	if st.Uid != f.made.UID || st.Gid != f.made.GID {
		err := host.Chown(int(f.made.UID), int(f.made.GID))
		if errors.Is(err, unix.EPERM) {
			c.Events.Emit(event.Event{Kind: event.Failed, Object: f.id.String(), Offset: -1, Err: err, Note: "a file that the journal makes keeps another owner"})
		} else if err != nil {
			return err
		}
	}
	if err := host.Chmod(f.made.Mode); err != nil {
		return err
	}
	return host.Sync()
}

// drop removes the last name of a file that lost it, where the host kept it.
func (c *Config) drop(f *file) error {
	return unlessStale(c.inParent(f.path, f.id, func(d disk.Dir, name string) error {
		host, err := d.Open(name, disk.ReadOnly)
		if err != nil {
			return unlessGone(err)
		}
		other, err := foreign(host, f.id)
		if err := errors.Join(err, host.Close()); err != nil || other {
			return err
		}
		return unlessGone(d.Unlink(name))
	}))
}
