package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/internal/disk"
)

// The bits of a file handle, which has nothing else in it.
const (
	mayWrite = 1 << iota // opened for writing
	hasData              // its FLUSH may have something to hand over: it may write, or it made the file
)

// writable reports whether open(2) flags allow writing.
func writable(flags uint32) bool { return flags&unix.O_ACCMODE != unix.O_RDONLY }

func (fs *FS) handle(flags uint32, out *fuse.OpenOut) {
	if writable(flags) {
		out.Fh = mayWrite | hasData
	} else if flags&unix.O_TRUNC != 0 {
		out.Fh = hasData
	}
	// Content never changes behind the kernel's back, so its pages stay good from one open to the next.
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
}

// Create makes a file and opens it. The kernel sends it only for names it believes not to exist; where it is wrong the file is opened.
func (fs *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	err := fs.create(in, name, out)
	if errors.Is(err, unix.EEXIST) && in.Flags&unix.O_EXCL == 0 {
		if err = fs.lookup(in.NodeId, name, &out.EntryOut); err == nil {
			err = fs.open(out.NodeId, in.Flags, in.OpenFlags, &out.OpenOut)
		}
	}
	return fs.status("create", err)
}

func (fs *FS) create(in *fuse.CreateIn, name string, out *fuse.CreateOut) error {
	parent, d, err := fs.parent(in.NodeId, name)
	if err != nil {
		return err
	}
	uid, gid, mode, err := fs.ownership(parent, &in.Caller, unix.S_IFREG|in.Mode, in.Umask)
	if err != nil {
		return err
	}
	c, e, err := fs.createFile(d, name, mode, uid, gid)
	if err != nil {
		return err
	}
	fs.born(parent, e.ID)
	made := false
	err = fs.openNew(c, in.Flags, out, func(st *unix.Stat_t) (*inode, error) {
		n, err := fs.enter(parent, e, st)
		if err == nil {
			n.held.CompareAndSwap(0, uint32(fs.fresh(parent, typeFile, mode)))
			fs.habits.take(parent.id, name, &n.habit)
			made = true
		}
		return n, err
	})
	if err != nil && !made {
		d.Undo(e)
	}
	return err
}

// openNew answers with a file that was just made, open. enter makes its inode.
func (fs *FS) openNew(c *container.File, flags uint32, out *fuse.CreateOut, enter func(st *unix.Stat_t) (*inode, error)) error {
	var st unix.Stat_t
	stat := disk.StatNew
	if !fs.cfg.WriteBack { // the host's ctime counts
		stat = disk.File.Stat
	}
	err := stat(c.Host(), &st)
	var n *inode
	if err == nil {
		n, err = enter(&st)
	}
	if err != nil {
		return errors.Join(err, c.Close())
	}
	n.loc.RLock()
	if len(n.links) > 0 {
		n.placeLocked(c, n.links[0])
	}
	n.loc.RUnlock()
	n.worked.Store(true)
	n.paged.Store(true)
	n.mu.Lock()
	fs.attach(n, c, st.Mtim)
	if !fs.cfg.WriteBack {
		n.toldCtime(st.Ctim) // nobody else has the name before the answer
	}
	n.mu.Unlock()
	n.privFree.Store(st.Mode&(suid|sgid) == 0 && n.has(heldKnown) && !n.has(heldMode))
	n.asMade.Store(true)
	n.metaDirty.Store(false) // the first fdatasync makes a length durable, and with it all that the inode was made with
	fs.opened(n, writable(flags))
	fs.handle(flags, &out.OpenOut)
	out.Fh |= hasData
	return fs.answer(n, &st, 0, &out.EntryOut)
}

// Open opens a file. Host and header are touched by writers only; a reader whose pages the kernel has costs nothing.
func (fs *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return fs.status("open", fs.open(in.NodeId, in.Flags, in.Mode, out))
}

func (fs *FS) open(node uint64, flags, openFlags uint32, out *fuse.OpenOut) error {
	n, err := fs.node(node)
	if err != nil {
		return err
	}
	if n.typ != typeFile {
		return unix.EINVAL
	}
	write := writable(flags)
	fs.opened(n, write)
	if !write && flags&unix.O_TRUNC == 0 {
		err = fs.expectRead(n)
	} else {
		err = fs.using(n, flags&unix.O_TRUNC != 0, func(f *cache.File) error {
			if f.Container().ReadOnly() {
				return unix.EROFS
			}
			if flags&unix.O_TRUNC == 0 {
				return nil
			}
			fs.changedNow(n)
			return f.Truncate(0)
		})
		switch {
		case flags&unix.O_TRUNC == 0 && damage(err):
			err = nil // a SETATTR may be about to empty it, for which it need not open; what else comes fails then
		case err == nil && flags&unix.O_TRUNC != 0:
			err = fs.killCaps(n)
		}
	}
	if err == nil && openFlags&fuse.OPEN_KILL_SUIDGID != 0 {
		err = fs.killPriv(n)
	}
	if err != nil {
		return errors.Join(err, fs.closed(n, write))
	}
	fs.handle(flags, out)
	return nil
}

// Read decrypts into buf, which is go-fuse's reply. At the end of the file it is short; what the kernel knows beyond (dirty pages it
// has not sent) it fills with zeros itself.
func (fs *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return nil, fs.status("read", err)
	}
	f, err := fs.use(n, false)
	if err != nil {
		return nil, fs.status("read", err)
	}
	n.paged.Store(true)
	got, err := f.ReadAt(buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	err = errors.Join(err, fs.unuse(n))
	if err != nil {
		return nil, fs.status("read", err)
	}
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// Write takes the data, into the cache or straight to the host. What is in the cache is handed over by FLUSH, FSYNC, pressure or the cache's timer.
func (fs *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return 0, fs.status("write", err)
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := fs.killPriv(n); err != nil {
			return 0, fs.status("write", err)
		}
	}
	if in.WriteFlags&fuse.WRITE_CACHE == 0 || fs.noAsk { // else the kernel did, when the page became dirty
		if err := fs.killCaps(n); err != nil {
			return 0, fs.status("write", err)
		}
	}
	err = fs.with(n, func(f *cache.File) error {
		fs.changedNow(n)
		write := f.WriteAt
		if in.WriteFlags&fuse.WRITE_CACHE != 0 { // nobody waits for the kernel's own writing back
			write = f.WriteThrough
		}
		if err := write(data, int64(in.Offset)); err != nil {
			return err
		}
		fs.flushAhead(n, f, len(data))
		return nil
	})
	if err != nil {
		return 0, fs.status("write", err)
	}
	return uint32(len(data)), fuse.OK
}

// Lseek answers SEEK_DATA and SEEK_HOLE. The kernel does not write dirty pages back before it asks, and its idea of the size may be
// ahead of ours: so while somebody may write (without write-back, into mapped pages), it is made to write them back first, and all of the
// file counts as data, because pages may become dirty again at once.
func (fs *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("lseek", err)
	}
	mixed := n.writers.Load() > 0
	if mixed {
		// The one notification from within a handler. It holds no lock, and the WRITE requests it causes have goroutines of their own.
		if s := fs.server.Load(); s != nil {
			s.InodeNotify(n.node, 0, -1)
		}
	}
	err = fs.with(n, func(f *cache.File) error {
		off, err := seek(f, int64(in.Offset), in.Whence, mixed)
		out.Offset = uint64(off)
		return err
	})
	return fs.status("lseek", err)
}

func seek(f *cache.File, off int64, whence uint32, allData bool) (int64, error) {
	size := f.Size()
	switch {
	case whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE:
		return 0, unix.EINVAL
	case off < 0 || off >= size:
		return 0, unix.ENXIO
	case whence == unix.SEEK_DATA && allData:
		return off, nil
	case whence == unix.SEEK_HOLE && allData:
		return size, nil
	case whence == unix.SEEK_DATA:
		return f.SeekData(off)
	}
	return f.SeekHole(off)
}

// Flush is sent at each close(2), after the kernel wrote its pages back: everything is handed to the host, without a device flush. The
// error is close's.
func (fs *FS) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if in.Fh&hasData == 0 {
		return fuse.OK
	}
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("flush", err)
	}
	n.mu.Lock()
	f := n.file
	if f == nil || n.keep && orphaned(f.Container().Host()) { // nothing was opened, or nobody can ever read it after the last close
		n.mu.Unlock()
		return fuse.OK
	}
	n.users++
	n.mu.Unlock()
	err = fs.handOverSent(n, f)
	return fs.status("flush", errors.Join(err, fs.unuse(n)))
}

// handOverSent flushes a file of which the kernel has sent all it knows, times included.
func (fs *FS) handOverSent(n *inode, f *cache.File) error {
	return fs.handOverThen(n, f, fs.keepTimes)
}

// handOverThen is handOverSent; then sees to the times, as keepTimes does.
func (fs *FS) handOverThen(n *inode, f *cache.File, then func(n *inode, c *container.File)) error {
	late := n.timesSent()
	err := fs.handOver(f)
	if err == nil {
		then(n, f.Container())
	} else if late {
		n.timesLate()
	}
	return err
}

// Fsync makes data, size and the links of a file durable. It acts on the inode, so that it works for an unlinked file.
func (fs *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("fsync", err)
	}
	const fdatasync = 1
	dataOnly := in.FsyncFlags&fdatasync != 0
	times := fs.keepTimes
	if n.habit.synced(dataOnly) && dataOnly {
		times = fs.oweTimes // they were not known when the disk was begun with
	}
	err = fs.with(n, func(f *cache.File) error {
		f.Container().SyncSoon()
		// Hand over first: that puts the mtime right, and what follows makes it durable with the data.
		if err := fs.handOverThen(n, f, times); err != nil {
			return err
		}
		made, err := fs.syncMade(n, f)
		if err == nil && !made {
			named := fs.syncNewName(n)
			err = errors.Join(f.Sync(), named())
		}
		if err != nil {
			return err
		}
		n.headerSynced.Store(true)
		if !dataOnly && n.metaDirty.Swap(false) {
			if err := fs.syncAttributes(f); err != nil {
				n.metaDirty.Store(true)
				return err
			}
		}
		return fs.syncLinks(n)
	})
	return fs.status("fsync", err)
}

// Release ends a handle. Nobody waits for it, and nobody would see an error: FLUSH told it before.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	n, err := fs.node(in.NodeId)
	if err == nil {
		err = fs.closed(n, in.Fh&mayWrite != 0)
	}
	_ = fs.status("release", err)
}

// Fallocate reserves room, punches holes and zeroes ranges. What is reserved are the slots on the host, and the metadata above them.
func (fs *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n, err := fs.node(in.NodeId)
	if err == nil {
		err = fs.fallocate(n, in)
	}
	return fs.status("fallocate", err)
}

func (fs *FS) fallocate(n *inode, in *fuse.FallocateIn) error {
	const (
		keep  = unix.FALLOC_FL_KEEP_SIZE
		punch = unix.FALLOC_FL_PUNCH_HOLE
		zero  = unix.FALLOC_FL_ZERO_RANGE
	)
	switch in.Mode {
	case 0, keep, punch | keep, zero, zero | keep:
	default:
		return unix.EOPNOTSUPP
	}
	if in.Uid != 0 { // FALLOCATE has no flag for it; only root may keep suid bits
		if err := fs.killPriv(n); err != nil {
			return err
		}
	}
	if err := fs.killCaps(n); err != nil {
		return err
	}
	return fs.with(n, func(f *cache.File) error {
		limit := f.Container().Geometry().MaxSize()
		if in.Offset > uint64(limit) || in.Length > uint64(limit)-in.Offset {
			return container.ErrTooLarge
		}
		off, end := int64(in.Offset), int64(in.Offset+in.Length)
		fs.changedNow(n) // whatever the range holds: so do the host's filesystems
		if in.Mode&(punch|zero) != 0 && off < f.Size() {
			if err := f.Discard(off, end-off); err != nil {
				return err
			}
		}
		if in.Mode&punch != 0 {
			return nil
		}
		err := f.Allocate(off, end-off)
		if err != nil && (in.Mode&zero == 0 || !errors.Is(err, unix.EOPNOTSUPP)) { // zeros are zeros, reserved or not
			return err
		}
		if in.Mode&keep == 0 && end > f.Size() {
			return fs.resize(f, end)
		}
		return nil
	})
}

// Ioctl answers that there are none.
func (fs *FS) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}
