package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Statx answers stat with the time of birth. The kernel sends STATX only where somebody asks for that time; all else of statx(2) it takes from GETATTR.
func (fs *FS) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n, err := fs.anyNode(in.NodeId)
	if err == nil {
		err = fs.statx(n, &out.Statx)
	}
	out.SetTimeout(fs.cfg.Timeout)
	return fs.status("statx", err)
}

func (fs *FS) statx(n *inode, out *fuse.Statx) error {
	var a fuse.Attr
	if err := fs.attr(n, &a); err != nil {
		return err
	}
	*out = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: a.Blksize, Nlink: a.Nlink, Uid: a.Uid, Gid: a.Gid, Mode: uint16(a.Mode),
		Ino: a.Ino, Size: a.Size, Blocks: a.Blocks,
		Atime:     fuse.SxTime{Sec: a.Atime, Nsec: a.Atimensec},
		Mtime:     fuse.SxTime{Sec: a.Mtime, Nsec: a.Mtimensec},
		Ctime:     fuse.SxTime{Sec: a.Ctime, Nsec: a.Ctimensec},
		RdevMajor: unix.Major(uint64(a.Rdev)), RdevMinor: unix.Minor(uint64(a.Rdev)),
	}
	var birth int64
	err := n.host(func(h attrs) (err error) { birth, err = h.BirthTime(); return err })
	if err != nil {
		return err
	}
	if birth != 0 {
		t := time.Unix(0, birth)
		out.Mask |= unix.STATX_BTIME
		out.Btime = fuse.SxTime{Sec: uint64(t.Unix()), Nsec: uint32(t.Nanosecond())}
	}
	return nil
}
