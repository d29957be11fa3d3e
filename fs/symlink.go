package fs

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// targetMax is the longest plain target in bytes, as on Linux.
const targetMax = unix.PathMax - 1

// Symlink makes a symbolic link. A target that, sealed, is too long for the host's goes into a container (FORMAT.md 8.4).
func (fs *FS) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return fs.status("symlink", fs.symlink(in, target, name, out))
}

func (fs *FS) symlink(in *fuse.InHeader, target, name string, out *fuse.EntryOut) error {
	parent, d, err := fs.parent(in.NodeId, name)
	if err != nil {
		return err
	}
	if len(target) > targetMax {
		return unix.ENAMETOOLONG
	}
	uid, gid, _, err := fs.ownership(parent, &in.Caller, unix.S_IFLNK, 0)
	if err != nil {
		return err
	}
	e, err := d.Symlink(name, target, uid, gid)
	if errors.Is(err, dirs.ErrTargetTooLong) {
		e, err = d.SymlinkContainer(name, uid, gid, func(h disk.File, id keys.ObjectID) error {
			return fs.writeTarget(h, id, target)
		})
	}
	if err != nil {
		return err
	}
	return fs.answerNew(parent, d, e, 0, out)
}

// writeTarget makes the container of a long target, and closes h.
func (fs *FS) writeTarget(h disk.File, id keys.ObjectID, target string) error {
	c, err := fs.cfg.Engine.Create(h, id, container.ObjectSymlink)
	if err != nil {
		return errors.Join(err, h.Close())
	}
	frame := make([]byte, c.Geometry().FrameSize) // at least 4096 bytes: any target is one frame
	copy(frame, target)
	frames := make([][]byte, c.Geometry().Frames)
	frames[0] = frame
	err = c.WriteFrames(int64(len(target)), []container.SegmentWrite{{Frames: frames, Dirty: 1}})
	if err == nil {
		err = c.Flush()
	}
	return errors.Join(err, c.Close())
}

// Readlink answers the plain target.
func (fs *FS) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	target, err := fs.readlink(in.NodeId)
	return target, fs.status("readlink", err)
}

func (fs *FS) readlink(node uint64) (target []byte, err error) {
	n, err := fs.node(node)
	if err != nil {
		return nil, err
	}
	n.loc.RLock()
	defer n.loc.RUnlock()
	err = n.byName(func(d *dirs.Dir, name string) error {
		if n.found.Flags&names.ContainerSymlink != 0 {
			target, err = fs.readTarget(d, name, n)
			return err
		}
		s, err := d.Readlink(name, n.id)
		target = []byte(s)
		return err
	})
	return target, err
}

// readTarget reads the container of a long target. The caller holds loc.
func (fs *FS) readTarget(d *dirs.Dir, name string, n *inode) ([]byte, error) {
	h, err := d.Open(name, n.id, disk.ReadOnly)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := h.Stat(&st); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	c, err := fs.cfg.Engine.Open(h, n.id, container.OpenOptions{ReadOnly: true, TrustLength: !fs.cfg.UncleanTime(st.Ctim), Object: container.ObjectSymlink})
	if err != nil {
		return nil, err
	}
	size := c.Size()
	if size < 1 || size > targetMax {
		return nil, errors.Join(fmt.Errorf("fs: symlink target of %d bytes: %w", size, container.ErrCorrupt), c.Close())
	}
	target := make([]byte, size)
	err = c.ReadAt(target, 0)
	return target, errors.Join(err, c.Close())
}
