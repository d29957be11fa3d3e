package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cache"
	"github.com/cofferfs/coffer/container"
)

// maxCopy is the most that one request copies; the kernel asks again for the rest.
const maxCopy = 1 << 30

// CopyFileRange copies within the mount, from cache to cache: no byte goes through the kernel. It has written back what is dirty in both ranges
// before it asks, and drops its pages of the target's afterwards. A signal ends it with what is done so far.
func (fs *FS) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	n, err := fs.copyRange(cancel, in)
	return uint32(n), fs.status("copy_file_range", err)
}

func (fs *FS) copyRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (int64, error) {
	from, err := fs.node(in.NodeId)
	if err != nil {
		return 0, err
	}
	to, err := fs.node(in.NodeIdOut)
	if err != nil {
		return 0, err
	}
	if in.Flags != 0 || int64(in.OffIn) < 0 || int64(in.OffOut) < 0 {
		return 0, unix.EINVAL
	}
	off, dst, n := int64(in.OffIn), int64(in.OffOut), int64(min(in.Len, maxCopy))
	if from == to && off < dst+n && dst < off+n {
		return 0, unix.EINVAL
	}
	if in.Uid != 0 { // as for FALLOCATE there is no flag; only root may keep suid bits
		if err := fs.killPriv(to); err != nil {
			return 0, err
		}
	}
	if err := fs.killCaps(to); err != nil {
		return 0, err
	}
	var done int64
	err = fs.with(from, func(src *cache.File) error {
		// Dirty pages outside of the range may make the file longer than it is known to be here: then the kernel has cut the range to its size, and
		// what is not here is a hole. Taking that for the end of the file would cut the copy.
		if !fs.cfg.WriteBack || from.writers.Load() == 0 {
			n = min(n, src.Size()-off)
		}
		if n <= 0 {
			return nil
		}
		return fs.with(to, func(f *cache.File) (err error) {
			if f.Container().ReadOnly() {
				return container.ErrReadOnly
			}
			fs.changedNow(to)
			done, err = f.CopyFrom(src, off, dst, n, cancel)
			return err
		})
	})
	if done > 0 {
		return done, nil // what failed does so again with the rest
	}
	return done, err
}
