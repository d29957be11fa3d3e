package check

import (
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// relink gives a symlink whose target is the host's an id of its own.
func (r *repairer) relink(o *object) (Action, error) {
	if r.done[o.inode()] {
		return Action{}, nil
	}
	from, err := r.hostDir(o.at)
	if err != nil {
		return Action{}, err
	}
	defer from.Close()
	sealed, err := from.Readlink(o.host)
	if err != nil {
		return Action{}, err
	}
	target, err := r.Codec.OpenTarget(o.link.ID, sealed)
	if err != nil {
		return Action{Result: Kept, What: "the target of a symlink is lost"}, nil
	}
	if r.Tree != nil {
		if err := r.replaceLink(o, target, from.Xattrs(o.host)); err != nil {
			return Action{}, err
		}
	}
	r.done[o.inode()] = true
	r.release(o)
	return Action{Result: Rebuilt, What: "a symlink"}, nil
}

// replaceLink makes a new symlink, and has it take over the name of o, whose attributes are attrs.
func (r *repairer) replaceLink(o *object, target string, attrs disk.Xattrs) error {
	d, err := r.dir(o.at)
	if err != nil {
		return err
	}
	defer d.Release()
	temp := r.tempName()
	e, err := d.Symlink(temp, target, int(o.st.Uid), int(o.st.Gid))
	if err != nil {
		return err
	}
	defer func() { _ = unlink(d, temp) }() // a later run finds what is left
	err = d.Utimes(temp, e.ID, &[2]unix.Timespec{o.st.Atim, o.st.Mtim})
	if err == nil && r.Attrs != nil {
		err = d.Xattrs(temp, e.ID, true, func(x disk.Xattrs) error {
			_, err := r.Attrs.Carry(x, xattrs.Object{ID: e.ID, Trusted: true}, attrs, xattrs.Object{ID: o.link.ID, Trusted: true})
			return err
		})
	}
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		return err
	}
	return r.supersede(o, d, temp)
}
