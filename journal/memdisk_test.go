package journal

import (
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// memDisk is a directory that knows synced from unsynced, by sector and for names apart. before, when set, is asked before each call; a write that it
// fails takes effect for the first keep bytes.
type memDisk struct {
	disk.Dir // calls that the journal does not make would panic
	mu       sync.Mutex
	names    map[string]*memInode
	durable  map[string]*memInode
	before   func(call, name string) (keep int, err error)
	space    int64 // bytes that can still be allocated; -1: any
	roomy    bool  // it says that there is much room
	direct   int   // writes past the page cache
	ended    int   // of them, those that were begun and ended
	altered  bool  // one was changed before its end
	cached   int   // files that are opened for these, and refuse them
	late     bool  // what is begun is refused when it ends
	started  [][2]int64
}

type memInode struct {
	cur, base []byte
	versions  map[int][][]byte // of sectors, since the last sync
}

type memFile struct {
	disk.File
	d    *memDisk
	name string
	i    *memInode
}

// memDirect is a file past the page cache.
type memDirect struct {
	*memFile
	refuses bool
	off     int // of what Begin began
	p, was  []byte
}

func newMemDisk() *memDisk {
	return &memDisk{names: map[string]*memInode{}, durable: map[string]*memInode{}, space: -1}
}

// call begins a host call; the caller unlocks.
func (d *memDisk) call(call, name string) (int, error) {
	d.mu.Lock()
	if d.before == nil {
		return 0, nil
	}
	return d.before(call, name)
}

func (d *memDisk) Create(name string, _ uint32) (disk.File, error) {
	defer d.mu.Unlock()
	if _, err := d.call("create", name); err != nil {
		return nil, err
	}
	if d.names[name] != nil {
		return nil, syscall.EEXIST
	}
	i := &memInode{versions: map[int][][]byte{}}
	d.names[name] = i
	return &memFile{d: d, name: name, i: i}, nil
}

func (d *memDisk) Open(name string, _ disk.Access) (disk.File, error) {
	defer d.mu.Unlock()
	if _, err := d.call("open", name); err != nil {
		return nil, err
	}
	i := d.names[name]
	if i == nil {
		return nil, syscall.ENOENT
	}
	return &memFile{d: d, name: name, i: i}, nil
}

func (d *memDisk) OpenDirect(name string) (disk.Direct, error) {
	defer d.mu.Unlock()
	if _, err := d.call("open direct", name); err != nil {
		return nil, err
	}
	d.cached--
	return &memDirect{memFile: &memFile{d: d, name: name, i: d.names[name]}, refuses: d.cached >= 0}, nil
}

func (d *memDisk) Unlink(name string) error {
	defer d.mu.Unlock()
	if _, err := d.call("unlink", name); err != nil {
		return err
	}
	if d.names[name] == nil {
		return syscall.ENOENT
	}
	delete(d.names, name)
	return nil
}

func (d *memDisk) Sync() error {
	defer d.mu.Unlock()
	if _, err := d.call("fsync directory", ""); err != nil {
		return err
	}
	d.durable = map[string]*memInode{}
	for name, i := range d.names {
		d.durable[name] = i
	}
	return nil
}

// Statfs is not counted: it changes nothing.
func (d *memDisk) Statfs(st *unix.Statfs_t) error {
	*st = unix.Statfs_t{Bsize: 4096}
	if d.roomy {
		st.Bavail = 1 << 20
	}
	return nil
}

func (d *memDisk) List(fn func(string, uint64, uint8) error) error {
	_, err := d.call("list", "")
	var names []string
	for name := range d.names {
		names = append(names, name)
	}
	d.mu.Unlock()
	for _, name := range names {
		if err == nil {
			err = fn(name, 0, 0)
		}
	}
	return err
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	defer f.d.mu.Unlock()
	if _, err := f.d.call("read", f.name); err != nil {
		return 0, err
	}
	if off >= int64(len(f.i.cur)) {
		return 0, io.EOF
	}
	n := copy(p, f.i.cur[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	defer f.d.mu.Unlock()
	keep, err := f.d.call("write", f.name)
	return f.put(p, off, keep, err)
}

// put writes p, or after a failed call what it kept.
func (f *memFile) put(p []byte, off int64, keep int, err error) (int, error) {
	n := len(p)
	if err != nil {
		n = min(keep, n)
	}
	if grow := off + int64(n) - int64(len(f.i.cur)); grow > 0 {
		if f.d.space >= 0 && grow > f.d.space {
			return 0, syscall.ENOSPC
		}
		if f.d.space >= 0 {
			f.d.space -= grow
		}
		f.i.cur = append(f.i.cur, make([]byte, grow)...)
	}
	copy(f.i.cur[off:], p[:n])
	for s := int(off) / sector; n > 0 && s <= (int(off)+n-1)/sector; s++ {
		f.i.versions[s] = append(f.i.versions[s], slices.Clone(f.i.cur[s*sector:min((s+1)*sector, len(f.i.cur))]))
	}
	return n, err
}

func (f *memFile) Start(off, n int64) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.started = append(f.d.started, [2]int64{off, off + n})
}

func (f *memDirect) WriteAt(p []byte, off int64) (int, error) {
	defer f.d.mu.Unlock()
	n, err := f.begin(p, off)
	if err == nil {
		f.durable()
	}
	return n, err
}

func (f *memDirect) Begin(p []byte, off int64) error {
	if f.refuses && f.d.late {
		f.p, f.was = p, slices.Clone(p)
		return nil
	}
	defer f.d.mu.Unlock()
	_, err := f.begin(p, off)
	return err
}

// begin writes past the page cache. The caller unlocks.
func (f *memDirect) begin(p []byte, off int64) (int, error) {
	keep, err := f.d.call("write", f.name)
	if f.refuses || disktest.CheckDirect(p, off) != nil {
		return 0, syscall.EINVAL
	}
	f.d.direct++
	f.off, f.p, f.was = int(off), p, slices.Clone(p)
	return f.put(p, off, keep, err)
}

func (f *memDirect) End() error {
	defer f.d.mu.Unlock()
	_, err := f.d.call("end write", f.name)
	f.d.altered = f.d.altered || !slices.Equal(f.p, f.was)
	if f.refuses {
		return syscall.EINVAL
	}
	if err == nil {
		f.durable()
		f.d.ended++
	}
	return err
}

// durable has what was begun on the disk.
func (f *memDirect) durable() {
	for s := f.off / sector; s < (f.off+len(f.p))/sector; s++ {
		copy(f.i.base[s*sector:], f.i.cur[s*sector:(s+1)*sector])
		delete(f.i.versions, s)
	}
}

func (f *memFile) Allocate(off, n int64) error {
	defer f.d.mu.Unlock()
	if _, err := f.d.call("allocate", f.name); err != nil {
		return err
	}
	if f.d.space >= 0 && off+n-int64(len(f.i.cur)) > f.d.space {
		return syscall.ENOSPC
	}
	return nil
}

func (f *memFile) Datasync() error {
	defer f.d.mu.Unlock()
	if _, err := f.d.call("fdatasync", f.name); err != nil {
		return err
	}
	f.i.base = slices.Clone(f.i.cur)
	clear(f.i.versions)
	return nil
}

func (f *memFile) Sync() error { return f.Datasync() }

func (f *memFile) Close() error { return nil }

// crash returns what may be there after a power cut: of what was not synced each sector and each name with probability p, and of a sector that was written
// several times any version.
func (d *memDisk) crash(rng *rand.Rand, p float64) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newMemDisk()
	done := map[*memInode]*memInode{}
	keep := func(name string) {
		from := d.durable[name]
		if d.names[name] != from && rng.Float64() < p {
			from = d.names[name]
		}
		if from == nil {
			return
		}
		if done[from] == nil {
			done[from] = from.crash(rng, p)
		}
		c.names[name], c.durable[name] = done[from], done[from]
	}
	for name := range d.names {
		keep(name)
	}
	for name := range d.durable {
		if d.names[name] == nil {
			keep(name)
		}
	}
	return c
}

func (i *memInode) crash(rng *rand.Rand, p float64) *memInode {
	b := slices.Clone(i.base)
	if len(i.cur) > len(b) && rng.Float64() < p {
		b = append(b, make([]byte, len(i.cur)-len(b))...)
	}
	for s, versions := range i.versions {
		if s*sector < len(b) && rng.Float64() < p {
			copy(b[s*sector:], versions[rng.IntN(len(versions))])
		}
	}
	return &memInode{cur: b, base: slices.Clone(b), versions: map[int][][]byte{}}
}
