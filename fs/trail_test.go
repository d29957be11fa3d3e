package fs

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// memoryHost is a host that says what it has in memory, and forgets all of it on demand.
type memoryHost struct {
	mu      sync.Mutex
	has     map[string]bool // host files that are in memory
	forgets bool            // it keeps nothing of what it fetches
	opens   int
	fetched int           // files that were not in memory
	gate    chan struct{} // where there is one, an open for reading waits until it is closed
}

// hostDir and hostFile pass every call on. Names in the vault are made and files are opened through them.
type hostDir struct {
	disk.Dir
	h *memoryHost
}

type hostFile struct {
	disk.File
	h    *memoryHost
	name string
}

func (d hostDir) OpenDir(name string) (disk.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	if err != nil || name == ".coffer" {
		return sub, err
	}
	return hostDir{sub, d.h}, nil
}

func (d hostDir) Open(name string, a disk.Access) (disk.File, error) {
	d.h.mu.Lock()
	d.h.opens++
	gate := d.h.gate
	d.h.mu.Unlock()
	if gate != nil && a == disk.ReadOnly {
		<-gate
	}
	f, err := d.Dir.Open(name, a)
	if err != nil {
		return nil, err
	}
	return hostFile{f, d.h, name}, nil
}

func (f hostFile) Lacks(int64, int64) bool {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	return !f.h.has[f.name]
}

func (f hostFile) Fetch(int64, int64) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if !f.h.has[f.name] {
		f.h.fetched++
		f.h.has[f.name] = !f.h.forgets
	}
}

// trailRig is a vault on such a host.
type trailRig struct {
	*testing.T
	*Stack
	host *memoryHost
	made int // directories
}

func newTrailRig(t *testing.T) *trailRig {
	r := &trailRig{T: t, host: &memoryHost{has: map[string]bool{}}}
	root := hostDir{disktest.NewMemory().Root(), r.host}
	passphrase := []byte("passphrase")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := vault.CreateDir(root, vault.Options{KDF: vault.KDF{Time: 1, MemoryKiB: 8, Threads: 1}}, passphrase)
	must(err)
	cfg, err := vault.ReadConfigDir(root)
	must(err)
	mk, err := cfg.Unlock(passphrase)
	must(err)
	defer mk.Destroy()
	v, err := vault.OpenDir(root, cfg, mk, vault.OpenOptions{Mountpoint: "/"})
	must(err)
	r.Stack, err = NewStack(v, StackConfig{WriteBack: true, Workers: 1, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	must(err)
	return r
}

func (r *trailRig) close() {
	r.Helper()
	if err := r.Stack.Close(); err != nil {
		r.Error(err)
	}
}

// trailName is the name of the i-th file that is made in a directory: their order is another one.
func trailName(i int) string { return fmt.Sprintf("%03d", (i*37+500)%1000) }

// dir makes a directory with files, which the kernel does not know then.
func (r *trailRig) dir(files int) uint64 {
	r.Helper()
	var out fuse.EntryOut
	mustOK(r, r.FS.Mkdir(nil, &fuse.MkdirIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, Mode: 0o755}, fmt.Sprint("dir", r.made), &out))
	r.made++
	dir := fuse.InHeader{NodeId: out.NodeId}
	for i := range files {
		var out fuse.CreateOut
		mustOK(r, r.FS.Create(nil, &fuse.CreateIn{InHeader: dir, Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o644}, trailName(i), &out))
		in := fuse.InHeader{NodeId: out.NodeId}
		mustOK(r, r.FS.Flush(nil, &fuse.FlushIn{InHeader: in, Fh: out.Fh}))
		r.FS.Release(nil, &fuse.ReleaseIn{InHeader: in, Fh: out.Fh})
		r.FS.Forget(out.NodeId, 1)
	}
	r.forget()
	return dir.NodeId
}

// forget empties the host's memory.
func (r *trailRig) forget() {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	clear(r.host.has)
	r.host.opens, r.host.fetched = 0, 0
}

func (r *trailRig) hostName(dir uint64, name string) string {
	r.Helper()
	n, err := r.FS.node(dir)
	if err != nil {
		r.Fatal(err)
	}
	d := n.dir.Load()
	e, err := d.Lookup(name)
	if err != nil {
		r.Fatal(err)
	}
	path := d.HostPath(e)
	return path[len(path)-1]
}

// fill puts files into the host's memory.
func (r *trailRig) fill(dir uint64, names []string) {
	r.Helper()
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	for _, name := range names {
		r.host.has[r.hostName(dir, name)] = true
	}
}

// open opens a file for reading and closes it. It answers whether the host had it in memory before. What is fetched because of it is there then.
func (r *trailRig) open(dir uint64, name string) (warm bool) {
	r.Helper()
	r.host.mu.Lock()
	warm = r.host.has[r.hostName(dir, name)]
	r.host.mu.Unlock()
	in := fuse.InHeader{NodeId: dir}
	var out fuse.EntryOut
	mustOK(r, r.FS.Lookup(nil, &in, name, &out))
	in.NodeId = out.NodeId
	mustOK(r, r.FS.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)))
	r.FS.trails.fetches.wait()
	r.FS.Release(nil, &fuse.ReleaseIn{InHeader: in})
	r.FS.Forget(in.NodeId, 1)
	return warm
}

// counts answers how often a host file was opened, and how many were not in memory then.
func (r *trailRig) counts() (opens, fetched int) {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	return r.host.opens, r.host.fetched
}

func trailNamesOf(files int) (bySeq, byName []string) {
	for i := range files {
		bySeq = append(bySeq, trailName(i))
	}
	return bySeq, slices.Sorted(slices.Values(bySeq))
}

// Files that are opened in the order of the listing, or in that of their names, wait for the disk once, or twice where the first of them is not the first of all. What is
// fetched ahead is bounded, none of it is fetched twice, and no more than a window is left where the reader stops. Directories may take turns.
func TestTrail(t *testing.T) {
	const files = 300 // more than are looked up at a time
	bySeq, byName := trailNamesOf(files)
	for name, order := range map[string][]string{"listing": bySeq, "names": byName} {
		t.Run(name, func(t *testing.T) {
			r := newTrailRig(t)
			defer r.close()
			a, b := r.dir(files), r.dir(files)
			cold := 0
			for i, name := range order[:files-50] {
				for _, dir := range []uint64{a, b} {
					if dir == b && i < 10 {
						continue
					}
					if !r.open(dir, name) {
						cold++
					}
				}
				if _, fetched := r.counts(); fetched > 2*(i+1+trailMost) {
					t.Fatalf("%d files were fetched for two times %d", fetched, i+1)
				}
			}
			if cold != 3 {
				t.Errorf("%d opens found the host without the file, want 3", cold)
			}
			opens, fetched := r.counts()
			if read := 2*(files-50) - 10; fetched <= read || fetched > read+2*trailMost || opens != fetched+read-cold {
				t.Errorf("%d host files were opened and %d fetched, for %d that were read", opens, fetched, read)
			}
			for _, name := range order[files-50:] {
				if !r.open(a, name) {
					t.Errorf("%s was not fetched", name)
				}
			}
		})
	}
}

// Files that a program leaves out are passed over, and what has a new name meanwhile, or none, ends nothing.
func TestTrailWithGaps(t *testing.T) {
	const files = 100
	r := newTrailRig(t)
	defer r.close()
	dir := r.dir(files)
	in := fuse.InHeader{NodeId: dir}
	cold := 0
	for i := 0; i < files; i++ {
		switch i % 10 {
		case 3, 4, 8:
		case 5:
			mustOK(t, r.FS.Unlink(nil, &in, trailName(i)))
		default:
			if !r.open(dir, trailName(i)) {
				cold++
			}
		}
	}
	if cold != 1 {
		t.Errorf("%d opens found the host without the file, want 1", cold)
	}
}

// What the host has in memory is not opened but for its reader; where that begins behind some files, no more than a few are to find it out.
func TestTrailOfWarmFiles(t *testing.T) {
	const files, few = 100, trailMost
	bySeq, _ := trailNamesOf(files)
	for _, cold := range []int{0, 20} {
		r := newTrailRig(t)
		dir := r.dir(files)
		r.fill(dir, bySeq[cold:])
		for i, name := range bySeq {
			if r.open(dir, name) == (i == 0 && cold > 0) {
				t.Errorf("file %d of those of which the first %d were not in memory", i, cold)
			}
		}
		opens, fetched := r.counts()
		if fetched != cold {
			t.Errorf("%d files were fetched, want %d", fetched, cold)
		}
		if own := opens - files; own < 0 || own > cold+few || cold == 0 && own > 0 {
			t.Errorf("%d host files were opened for %d, the first %d of which were not in memory", opens, files, cold)
		}
		r.close()
	}
}

// Who reads here and there has next to nothing fetched that is not read, however long that goes on.
func TestTrailOfRandomReads(t *testing.T) {
	const files, reads, few = 500, 400, 40
	r := newTrailRig(t)
	defer r.close()
	dir := r.dir(files)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, i := range rng.Perm(files)[:reads] {
		r.open(dir, trailName(i))
	}
	if _, fetched := r.counts(); fetched > reads+few {
		t.Errorf("%d files were fetched, of which %d were read", fetched, reads)
	}
}

// A host that keeps nothing of what it fetched is asked for the credit, and again after a while.
func TestTrailOfForgetfulHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const files = 500
		r := newTrailRig(t)
		defer r.close()
		r.host.forgets = true
		dir := r.dir(files)
		want := 0
		for range 2 {
			for i := range files / 2 {
				r.open(dir, trailName(i))
			}
			opens, _ := r.counts()
			if want += files/2 + trailCredit; opens > want || opens < want-trailCredit/4 {
				t.Errorf("%d host files were opened, want %d", opens, want)
			}
			time.Sleep(trailPause + time.Second)
		}
	})
}

// No more than so many directories are followed, whichever they are.
func TestTrailsAreBounded(t *testing.T) {
	r := newTrailRig(t)
	defer r.close()
	for range trailsMost + 20 {
		r.open(r.dir(2), trailName(0))
	}
	r.FS.trails.mu.Lock()
	defer r.FS.trails.mu.Unlock()
	if n := len(r.FS.trails.of); n != trailsMost {
		t.Errorf("%d directories are followed, want %d", n, trailsMost)
	}
}

// A vault is not closed while files of it are being fetched; nor does any request wait for that.
func TestTrailAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrailRig(t)
		dir := r.dir(50)
		r.host.gate = make(chan struct{})
		for i := range 3 {
			in := fuse.InHeader{NodeId: dir}
			var out fuse.EntryOut
			mustOK(t, r.FS.Lookup(nil, &in, trailName(i), &out))
			in.NodeId = out.NodeId
			mustOK(t, r.FS.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)))
			r.FS.Release(nil, &fuse.ReleaseIn{InHeader: in})
			synctest.Wait()
		}
		if opens, _ := r.counts(); opens != 4 {
			t.Fatalf("%d host files were opened, want those of three opens and one that waits", opens)
		}
		closed := false
		go func() { r.close(); closed = true }()
		synctest.Wait()
		if closed {
			t.Error("the vault was closed while a file was being fetched")
		}
		close(r.host.gate)
		synctest.Wait()
		if !closed {
			t.Error("the vault was not closed")
		}
	})
}
