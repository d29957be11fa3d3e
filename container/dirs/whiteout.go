package dirs

import (
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// owner is who is to have what a call makes; -1 leaves what the host gave.
type owner struct{ uid, gid int }

// RenameWhiteout is Rename, and leaves a whiteout (the character device 0:0, mode 0, by which overlayfs knows that a name of the layer below is gone) of uid and gid at the
// old name: RENAME_WHITEOUT of renameat2(2). Through any power cut the old name carries what it did or the whiteout, never nothing. flags are 0 or RENAME_NOREPLACE.
func (t *Tree) RenameWhiteout(src *Dir, old string, dst *Dir, new string, flags uint, uid, gid int) (moved Entry, replaced *Entry, err error) {
	if flags != 0 && flags != unix.RENAME_NOREPLACE {
		return Entry{}, nil, unix.EINVAL
	}
	return t.rename(&renaming{t: t, src: src, dst: dst, old: old, new: new, whiteout: &owner{uid, gid}}, flags)
}

// putWhiteout makes the whiteout, durably, as a loser of the old name: its sequence is the one below that of the object, so that the rename of that, one host
// call, shows it. A rename that fails leaves it to dropWhiteout. EINVAL for what carries no sequence that has one below it: a whiteout of the vault's first object.
func (r *renaming) putWhiteout() (link, error) {
	const mode = unix.S_IFCHR
	if r.from.seq == 0 {
		return link{}, unix.EINVAL
	}
	d, n := r.src, link{id: keys.RandomObjectID(), seq: r.from.seq - 1, typ: names.CharDev}
	host, sidecar := d.seal(r.old, n)
	if err := d.putSidecar(r.sfd, host, sidecar); err != nil {
		return link{}, err
	}
	mknod := func() error { return r.sfd.Mknod(host, mode, 0) }
	err := disk.As(r.whiteout.uid, r.whiteout.gid, mknod)
	if err != nil {
		d.dropSidecar(r.sfd, host, sidecar != nil)
		return link{}, d.refused(err)
	}
	d.addLoser(r.old, n)
	w := want{n.id, n.typ, mode, r.whiteout.uid, r.whiteout.gid}
	if err = d.setAttributes(named{r.sfd, host, r.sfd.Xattrs(host)}, w); err == nil {
		err = r.sfd.Sync()
	}
	if err != nil {
		r.dropWhiteout()
		return link{}, d.refused(err)
	}
	return n, nil
}

// dropWhiteout removes the whiteout of a rename that failed. One that the host keeps stays a loser, hidden, and an event says so.
func (r *renaming) dropWhiteout() {
	if err := r.src.removeLosers(r.sfd, r.old); err != nil {
		r.src.failed("", err, "remove the whiteout of a rename that failed")
	}
}
