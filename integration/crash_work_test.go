package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// crashRun makes system calls at random on a vault and keeps the history of them.
type crashRun struct {
	*history
	rng     *rand.Rand
	key     *keys.MasterKey
	wrap    func(disk.Dir) disk.Dir // between the stack and the disk
	stack   *crashStack
	k       *kernel
	dirs    []*object // that have a name
	files   []*object // the same
	links   []*object // symlinks, the same
	handles []handle
	maxSize int64
	lazy    bool // of kernel
}

type handle struct {
	o     *object
	fh    uint64
	flags uint32
}

// newCrashRun opens the vault on m and records from here on.
func newCrashRun(m *disktest.Memory, mk *keys.MasterKey, rng *rand.Rand, bug plantedBug) (*crashRun, error) {
	m.Record()
	r := &crashRun{history: newHistory(m), rng: rng, key: mk, wrap: bug.wrap, maxSize: 300 << 10, lazy: bug.lazy}
	if r.wrap == nil {
		r.wrap = func(d disk.Dir) disk.Dir { return d }
	}
	r.dirs = []*object{r.root}
	return r, r.mount()
}

func (r *crashRun) mount() (err error) {
	r.stack, err = openCrash(r.wrap(r.disk.Root()), r.key, r.rng.IntN(2) == 0)
	if err != nil {
		return err
	}
	r.k = newKernel(r.stack.FS)
	r.k.lazy = r.lazy
	r.root.node = fuse.FUSE_ROOT_ID
	return nil
}

// step makes one system call. An error says that it failed, which none of them should.
func (r *crashRun) step() error {
	type action struct {
		weight int
		do     func() error
	}
	actions := []action{
		{12, r.create}, {6, r.open}, {8, r.close}, {22, r.write}, {5, r.truncate}, {4, r.punch}, {14, r.fsync}, {5, r.fsyncDir},
		{10, r.rename}, {3, r.link}, {6, r.unlink}, {4, r.mkdir}, {2, r.rmdir}, {2, r.symlink}, {2, r.chmod}, {5, r.replace}, {5, r.scratch}, {4, r.tmpfile}, {3, r.commits}, {2, r.rollbacks}, {1, r.remount},
		{2, func() error { return r.stack.Engine.Checkpoint() }},
	}
	sum := 0
	for _, a := range actions {
		sum += a.weight
	}
	n := r.rng.IntN(sum)
	for _, a := range actions {
		if n -= a.weight; n < 0 {
			return a.do()
		}
	}
	return nil
}

// pick answers one of them, the zero value where there is none.
func pick[T any](r *crashRun, from []T) (x T) {
	if len(from) > 0 {
		x = from[r.rng.IntN(len(from))]
	}
	return x
}

// name answers one of a few, so that they meet; some are too long for the host.
func (r *crashRun) name() string {
	s := string(rune('a' + r.rng.IntN(8)))
	switch r.rng.IntN(12) {
	case 0:
		return strings.Repeat(s, 255)
	case 1:
		return strings.Repeat(s, 150)
	}
	return s
}

func (r *crashRun) anySlot() *slot { return pick(r, r.dirs).slot(r.name()) }

// node answers the node id of an object, by a lookup of one of its names as the kernel makes for a path. What has no name is open.
func (r *crashRun) node(o *object) (uint64, error) {
	if o == r.root || o.links.now() == 0 {
		return o.node, nil
	}
	return r.resolve(pick(r, o.names()))
}

// resolve looks a name up, as the kernel does with every name that it is about to change.
func (r *crashRun) resolve(s *slot) (uint64, error) {
	o := s.held.now()
	dir, err := r.node(s.dir)
	if err != nil {
		return 0, err
	}
	node, a, err := r.k.lookup(dir, s.name)
	if err == nil && (a.Ino != o.ino || o.node != 0 && o.node != node) {
		err = fmt.Errorf("inode %d, node %d", a.Ino, node)
	}
	if err != nil {
		return 0, fmt.Errorf("lookup of %s: %w", o, err)
	}
	o.node = node
	o.know(s)
	return node, nil
}

// free answers a slot that holds nothing, and its directory's node; nil where it found none.
func (r *crashRun) free() (*slot, uint64, error) {
	s := r.anySlot()
	if s.held.now() != nil {
		return nil, 0, nil
	}
	dir, err := r.node(s.dir)
	return s, dir, err
}

func (r *crashRun) create() error {
	if len(r.files) > 14 {
		return r.unlink()
	}
	s, dir, err := r.free()
	if s == nil || err != nil {
		return err
	}
	_, err = r.createAt(s, dir)
	return err
}

func (r *crashRun) createAt(s *slot, dir uint64) (h handle, err error) {
	r.event(fmt.Sprintf("create %s", s), func(ev int) {
		node, a, fh, cerr := r.k.create(dir, s.name)
		if err = cerr; err != nil {
			return
		}
		o := r.newFile(ev, a.Ino)
		o.node, o.opens = node, 1
		o.mode.set(ev, a.Mode&0o7777)
		r.put(ev, map[*slot]*object{s: o})
		r.files = append(r.files, o)
		h = handle{o, fh, unix.O_RDWR}
		r.handles = append(r.handles, h)
	})
	return h, wrapStep("create", err)
}

// tmpfile makes a file without a name, writes and syncs it or not, and gives it one.
func (r *crashRun) tmpfile() error {
	s, dir, err := r.free()
	if s == nil || err != nil || len(r.files) > 14 {
		return err
	}
	var h handle
	r.event(fmt.Sprintf("tmpfile in %s", s.dir), func(ev int) {
		node, a, fh, terr := r.k.tmpfile(dir)
		if err = terr; err != nil {
			return
		}
		o := r.newFile(ev, a.Ino)
		o.node, o.opens = node, 1
		o.mode.set(ev, a.Mode&0o7777)
		o.links.set(ev, 0)
		h = handle{o, fh, unix.O_RDWR}
	})
	if err != nil {
		return wrapStep("tmpfile", err)
	}
	r.handles = append(r.handles, h)
	for range r.rng.IntN(3) {
		if err == nil {
			err = r.writeTo(h)
		}
		if err == nil && r.rng.IntN(3) == 0 {
			err = r.fsyncHandle(h)
		}
	}
	if err != nil {
		return err
	}
	r.event(fmt.Sprintf("link %s at %s", h.o, s), func(ev int) {
		if err = r.k.link(h.o.node, dir, s.name); err == nil {
			r.put(ev, map[*slot]*object{s: h.o})
			r.files = append(r.files, h.o)
		}
	})
	if err == nil && r.rng.IntN(2) == 0 {
		err = r.fsyncDirAt(s.dir, dir)
	}
	return wrapStep("link", err)
}

func wrapStep(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (r *crashRun) open() error {
	o := pick(r, r.files)
	if o == nil || len(r.handles) > 6 {
		return r.close()
	}
	node, err := r.node(o)
	if err != nil {
		return err
	}
	flags := uint32(unix.O_RDWR)
	if r.rng.IntN(8) == 0 {
		flags |= unix.O_TRUNC
	}
	r.event(fmt.Sprintf("open %s, flags %o", o, flags), func(ev int) {
		fh, oerr := r.k.open(node, flags)
		if err = oerr; err != nil {
			return
		}
		if flags&unix.O_TRUNC != 0 && len(o.content) > 0 {
			o.become(ev, nil, 0, int64(len(o.content)))
		}
		o.opens++
		r.handles = append(r.handles, handle{o, fh, flags})
	})
	return wrapStep("open", err)
}

func (r *crashRun) close() error {
	if len(r.handles) == 0 {
		return nil
	}
	return r.closeHandle(r.rng.IntN(len(r.handles)))
}

func (r *crashRun) closeHandle(i int) (err error) {
	h := r.handles[i]
	r.handles = slices.Delete(r.handles, i, i+1)
	ev := r.last()
	r.event(fmt.Sprintf("close %s", h.o), func(int) { err = r.k.close(h.o.node, h.fh, h.flags) })
	h.o.opens--
	h.o.data = append(h.o.data, promise{ev: ev, given: r.disk.Ops(), byClose: true})
	if h.o.opens == 0 && (h.o.links.now() == 0 || r.rng.IntN(2) == 0) {
		r.k.forget(h.o.node)
		h.o.forget()
	}
	return wrapStep("close", err)
}

// stamp answers n bytes that no other event writes.
func (r *crashRun) stamp(ev int, n int64) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint32(b[i:], uint32(ev)|1<<31)
		binary.LittleEndian.PutUint32(b[i+4:], uint32(i))
	}
	return b
}

func (r *crashRun) write() error {
	h := pick(r, r.handles)
	if h.o == nil {
		return r.create()
	}
	return r.writeTo(h)
}

func (r *crashRun) writeTo(h handle) error {
	size := int64(len(h.o.content))
	var off, n int64
	switch r.rng.IntN(7) {
	case 0: // append
		off, n = size, 1+r.rng.Int64N(6000)
	case 1: // a page or a few of the file, as databases do
		off, n = r.rng.Int64N(size/page+1)*page, page*(1+r.rng.Int64N(3))
	case 2: // a few bytes
		off, n = r.rng.Int64N(size+1), 1+r.rng.Int64N(200)
	case 3: // far behind the end
		off, n = size+r.rng.Int64N(100<<10), 1+r.rng.Int64N(5000)
	case 4: // much
		off, n = r.rng.Int64N(size/page+1)*page, page*(1+r.rng.Int64N(40))
	case 5: // as much as passes the cache
		off, n = r.rng.Int64N(4)*page, page*(64+r.rng.Int64N(8))
	default:
		off, n = r.rng.Int64N(size+1), 1+r.rng.Int64N(20<<10)
	}
	off = min(off, r.maxSize)
	return r.writeAt(h, off, min(n, r.maxSize+page-off))
}

func (r *crashRun) writeAt(h handle, off, n int64) (err error) {
	size := int64(len(h.o.content))
	r.event(fmt.Sprintf("write %s, %d bytes at %d of %d", h.o, n, off, size), func(ev int) {
		data := r.stamp(ev, n)
		if err = r.k.write(h.o.node, h.fh, data, off); err != nil {
			return
		}
		content := make([]byte, max(size, off+n))
		copy(content, h.o.content)
		copy(content[off:], data)
		h.o.become(ev, content, off, n)
	})
	return wrapStep("write", err)
}

func (r *crashRun) truncate() error {
	o := pick(r, r.files)
	if o == nil {
		return nil
	}
	node, err := r.node(o)
	if err != nil {
		return err
	}
	old := int64(len(o.content))
	size := r.rng.Int64N(old + 3*page)
	switch r.rng.IntN(4) {
	case 0:
		size = 0
	case 1:
		size = size / page * page
	}
	size = min(size, r.maxSize)
	if r.rng.IntN(8) == 0 {
		size = 5 * r.maxSize // to be cut off again, which is applied at once because it is much
	}
	r.event(fmt.Sprintf("truncate %s from %d to %d", o, old, size), func(ev int) {
		if err = r.k.truncate(node, size); err == nil {
			content := make([]byte, size)
			copy(content, o.content)
			o.become(ev, content, min(size, old), max(0, old-size))
		}
	})
	return wrapStep("truncate", err)
}

func (r *crashRun) punch() error {
	h := pick(r, r.handles)
	if h.o == nil || len(h.o.content) == 0 {
		return nil
	}
	size := int64(len(h.o.content))
	off := r.rng.Int64N(size)
	n := 1 + r.rng.Int64N(size-off)
	mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	if r.rng.IntN(3) == 0 {
		mode = unix.FALLOC_FL_ZERO_RANGE
	}
	var err error
	r.event(fmt.Sprintf("fallocate %s, mode %d, %d bytes at %d of %d", h.o, mode, n, off, size), func(ev int) {
		if err = r.k.fallocate(h.o.node, h.fh, off, n, mode); err == nil {
			content := bytes.Clone(h.o.content)
			clear(content[off:][:n])
			h.o.become(ev, content, off, n)
		}
	})
	return wrapStep("fallocate", err)
}

func (r *crashRun) fsync() error {
	h := pick(r, r.handles)
	if h.o == nil {
		return nil
	}
	return r.fsyncHandle(h)
}

func (r *crashRun) fsyncHandle(h handle) (err error) {
	return r.syncHandle(h, r.rng.IntN(2) == 0)
}

func (r *crashRun) syncHandle(h handle, dataOnly bool) (err error) {
	ev := r.last()
	r.event(fmt.Sprintf("fsync %s, data only %v", h.o, dataOnly), func(int) { err = r.k.fsync(h.o.node, h.fh, dataOnly) })
	if err == nil {
		r.synced(h.o, ev, r.disk.Ops(), dataOnly)
	}
	return wrapStep("fsync", err)
}

func (r *crashRun) fsyncDir() error {
	d := pick(r, r.dirs)
	node, err := r.node(d)
	if err != nil {
		return err
	}
	return r.fsyncDirAt(d, node)
}

func (r *crashRun) fsyncDirAt(d *object, node uint64) (err error) {
	ev := r.last()
	r.event(fmt.Sprintf("fsync %s", d), func(int) { err = r.k.fsyncDir(node) })
	if err == nil {
		r.syncedDir(d, ev, r.disk.Ops())
	}
	return wrapStep("fsyncdir", err)
}

func (r *crashRun) chmod() error {
	o := r.anything()
	if o == nil || o.target != "" {
		return nil
	}
	node, err := r.node(o)
	if err != nil {
		return err
	}
	mode := 0o600 | r.rng.Uint32N(0o1000)
	r.event(fmt.Sprintf("chmod %s to %o", o, mode), func(ev int) {
		if err = r.k.chmod(node, mode); err == nil {
			o.mode.set(ev, mode)
		}
	})
	return wrapStep("chmod", err)
}

// replace is how editors save: write beside, fsync, rename over, and some of them sync the directory.
func (r *crashRun) replace() error {
	o := pick(r, r.files)
	if o == nil {
		return nil
	}
	to := pick(r, o.names())
	s := to.dir.slot("replacement")
	if s.held.now() != nil {
		return nil
	}
	dir, err := r.node(to.dir)
	if err != nil {
		return err
	}
	h, err := r.createAt(s, dir)
	if err != nil {
		return err
	}
	err = r.writeTo(h)
	if err == nil && r.rng.IntN(4) > 0 {
		err = r.fsyncHandle(h)
	}
	if err == nil {
		err = r.closeHandle(len(r.handles) - 1)
	}
	if err == nil {
		err = r.renameTo(s, to, 0)
	}
	if err == nil && r.rng.IntN(2) == 0 {
		err = r.fsyncDirAt(to.dir, dir)
	}
	return err
}

// scratch is a file that does not last, as a database keeps one for each transaction: made, synced, its directory too, written and synced on, and mostly removed
// in the end.
func (r *crashRun) scratch() error {
	s, dir, err := r.free()
	if s == nil || err != nil || len(r.files) > 14 {
		return err
	}
	h, err := r.createAt(s, dir)
	for range r.rng.IntN(3) {
		if err == nil {
			err = r.writeTo(h)
		}
		if err == nil {
			err = r.fsyncHandle(h)
		}
		if err == nil && r.rng.IntN(2) == 0 {
			err = r.fsyncDirAt(s.dir, dir)
		}
	}
	if err == nil {
		err = r.closeHandle(len(r.handles) - 1)
	}
	if err == nil && r.rng.IntN(4) > 0 {
		err = r.remove(s, r.k.unlink)
	}
	if err == nil && r.rng.IntN(3) == 0 {
		err = r.fsyncDirAt(s.dir, dir)
	}
	return err
}

// commits is what databases do: a few small writes and an fdatasync, again and again, so that the filesystem comes to foresee it. Not always it is right.
func (r *crashRun) commits() error {
	h := pick(r, r.handles)
	if h.o == nil {
		return nil
	}
	writes := 1 + r.rng.IntN(2)
	for range 4 + r.rng.IntN(8) {
		for range writes {
			size := int64(len(h.o.content))
			off := []int64{size, r.rng.Int64N(size/page+1) * page, r.rng.Int64N(size + 1)}[r.rng.IntN(3)]
			if err := r.writeAt(h, min(off, r.maxSize), 1+r.rng.Int64N(2*page)); err != nil {
				return err
			}
		}
		if r.rng.IntN(16) == 0 {
			return r.truncate()
		}
		if err := r.syncHandle(h, true); err != nil {
			return err
		}
	}
	return nil
}

// rollbacks is what databases do that keep a rollback journal: it is made for each transaction, under one name, written and synced as the last one, and removed, so
// that the filesystem comes to begin with it from its first WRITE on. Then anything may come before the fdatasync, or in its place.
func (r *crashRun) rollbacks() error {
	s, dir, err := r.free()
	if s == nil || err != nil || len(r.files) > 12 {
		return err
	}
	n := 1 + r.rng.Int64N(3*page)
	for range 2 {
		h, err := r.createAt(s, dir)
		for range 2 {
			if err == nil {
				err = r.writeAt(h, r.rng.Int64N(2)*page, n)
			}
			if err == nil {
				err = r.syncHandle(h, true)
			}
		}
		if err == nil {
			err = r.remove(s, r.k.unlink)
		}
		if err == nil {
			err = r.closeHandle(len(r.handles) - 1)
		}
		if err != nil {
			return err
		}
	}
	h, err := r.createAt(s, dir)
	if err == nil {
		err = r.writeAt(h, []int64{0, r.maxSize}[r.rng.IntN(2)], n) // of a long file the journal takes no make
	}
	for range r.rng.IntN(4) {
		if err == nil {
			err = r.step()
		}
	}
	if err == nil && slices.Contains(r.handles, h) {
		err = r.fsyncHandle(h)
	}
	return err
}

// remount closes everything, unmounts and mounts again. It promises what closing does.
func (r *crashRun) remount() (err error) {
	for len(r.handles) > 0 {
		if err := r.closeHandle(0); err != nil {
			return err
		}
	}
	for _, o := range r.byIno {
		o.forget()
	}
	r.event("remount", func(int) {
		if err = r.stack.Close(); err == nil {
			err = r.mount()
		}
	})
	return wrapStep("remount", err)
}

// check compares the live vault with the model: what is judged later must be right before.
func (r *crashRun) check() error {
	for len(r.handles) > 0 {
		if err := r.closeHandle(0); err != nil {
			return err
		}
	}
	if n := r.stack.FS.Panics(); n > 0 {
		return fmt.Errorf("%d requests panicked", n)
	}
	j := &judge{judged: r.now(), k: r.k}
	j.look()
	if len(j.problems) > 0 {
		return errors.New("before any crash: " + strings.Join(j.problems, "; "))
	}
	return nil
}
