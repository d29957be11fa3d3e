package integration

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// servedHost is a FUSE filesystem for a vault to lie on that knows which objects have changes that no fsync came for. The kernel does not tell it of syncfs(2).
type servedHost struct {
	fuse.RawFileSystem

	mu      sync.Mutex // guards what follows
	inos    map[uint64]uint64
	changed map[uint64]int // by inode number: changes that no fsync covered
}

func (h *servedHost) know(e *fuse.EntryOut) {
	h.mu.Lock()
	h.inos[e.NodeId] = e.Ino
	h.mu.Unlock()
}

// change notes a change of each node, and answers s, what came of it.
func (h *servedHost) change(s fuse.Status, nodes ...uint64) fuse.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range nodes {
		if s.Ok() {
			h.changed[h.inos[n]]++
		}
	}
	return s
}

// sync has what f syncs be clean, but for what changes meanwhile.
func (h *servedHost) sync(node uint64, f func() fuse.Status) fuse.Status {
	h.mu.Lock()
	before := h.changed[h.inos[node]]
	h.mu.Unlock()
	s := f()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed[h.inos[node]] -= before; h.changed[h.inos[node]] <= 0 {
		delete(h.changed, h.inos[node])
	}
	return s
}

func (h *servedHost) Lookup(c <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s := h.RawFileSystem.Lookup(c, in, name, out)
	if s.Ok() {
		h.know(out)
	}
	return s
}

func (h *servedHost) Create(c <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	s := h.RawFileSystem.Create(c, in, name, out)
	if s.Ok() {
		h.know(&out.EntryOut)
	}
	return h.change(s, in.NodeId, out.NodeId)
}

func (h *servedHost) Mkdir(c <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	s := h.RawFileSystem.Mkdir(c, in, name, out)
	if s.Ok() {
		h.know(out)
	}
	return h.change(s, in.NodeId)
}

func (h *servedHost) Mknod(c <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return h.change(h.RawFileSystem.Mknod(c, in, name, out), in.NodeId)
}

func (h *servedHost) Symlink(c <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return h.change(h.RawFileSystem.Symlink(c, in, target, name, out), in.NodeId)
}

func (h *servedHost) Link(c <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return h.change(h.RawFileSystem.Link(c, in, name, out), in.NodeId)
}

func (h *servedHost) Unlink(c <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return h.change(h.RawFileSystem.Unlink(c, in, name), in.NodeId)
}

func (h *servedHost) Rmdir(c <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return h.change(h.RawFileSystem.Rmdir(c, in, name), in.NodeId)
}

func (h *servedHost) Rename(c <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return h.change(h.RawFileSystem.Rename(c, in, from, to), in.NodeId, in.Newdir)
}

func (h *servedHost) Write(c <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, s := h.RawFileSystem.Write(c, in, data)
	return n, h.change(s, in.NodeId)
}

func (h *servedHost) Fallocate(c <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return h.change(h.RawFileSystem.Fallocate(c, in), in.NodeId)
}

func (h *servedHost) SetAttr(c <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return h.change(h.RawFileSystem.SetAttr(c, in, out), in.NodeId)
}

func (h *servedHost) SetXAttr(c <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	return h.change(h.RawFileSystem.SetXAttr(c, in, attr, data), in.NodeId)
}

func (h *servedHost) Fsync(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return h.sync(in.NodeId, func() fuse.Status { return h.RawFileSystem.Fsync(c, in) })
}

func (h *servedHost) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return h.sync(in.NodeId, func() fuse.Status { return fuse.OK })
}

// unsynced are the objects below a directory that lies under the mount, and it itself, with changes that a power cut may take.
func (h *servedHost) unsynced(t *testing.T, backing string) (paths []string) {
	t.Helper()
	h.mu.Lock()
	changed := maps.Clone(h.changed)
	h.mu.Unlock()
	err := filepath.WalkDir(backing, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if changed[lstat(t, path).Ino] > 0 {
			paths = append(paths, strings.TrimPrefix(path, backing))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return paths
}

// killed has all objects below a directory be as they are where the daemon was killed before it synced them.
func (h *servedHost) killed(t *testing.T, backing string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	err := filepath.WalkDir(backing, func(path string, _ fs.DirEntry, err error) error {
		if st := lstat(t, path); st.Mode&unix.S_IFMT != unix.S_IFLNK {
			h.changed[st.Ino]++
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// On a host that is not told of syncfs(2), all that a checkpoint gives up, that a replay made and that a clean end leaves is synced none the less.
func TestServedHost(t *testing.T) {
	needRoot(t)
	backing, dir := t.TempDir(), t.TempDir()
	root, err := fusefs.NewLoopbackRoot(backing)
	if err != nil {
		t.Fatal(err)
	}
	var timeout time.Duration
	h := &servedHost{inos: map[uint64]uint64{fuse.FUSE_ROOT_ID: lstat(t, backing).Ino}, changed: map[uint64]int{}}
	h.RawFileSystem = fusefs.NewNodeFS(root, &fusefs.Options{EntryTimeout: &timeout, AttrTimeout: &timeout})
	serveHost(t, h, dir, &fuse.MountOptions{DisableReadDirPlus: true})

	if err := os.Mkdir(filepath.Join(dir, "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := mount(t, options{vault: filepath.Join(dir, "vault"), wantErrors: true}) // a replay tells of itself
	inVault := filepath.Join(backing, "vault")
	outside := func(when string) { // of .coffer
		t.Helper()
		left := slices.DeleteFunc(h.unsynced(t, inVault), func(path string) bool { return strings.HasPrefix(path, "/.coffer") })
		if len(left) > 0 {
			t.Errorf("%s: %d are not synced, %q first", when, len(left), left[0])
		}
	}
	work := func(name string) {
		m.must(os.MkdirAll(m.path(name, "a", "b"), 0o755))
		for i := range 30 {
			f := m.open(filepath.Join(name, "a", "b", strings.Repeat("f", i+1)), os.O_RDWR|os.O_CREATE)
			for range 2 { // new, and over what is stored
				_, err := f.WriteAt(patterned(20_000+i*5_000), 0)
				m.must(err)
				m.must(f.Sync())
			}
			m.must(f.Close())
		}
		m.must(os.Rename(m.path(name, "a", "b", "f"), m.path(name, "a", "moved")))
		m.must(os.Remove(m.path(name, "a", "b", "ff")))
		m.must(os.Symlink("target", m.path(name, "symlink")))
	}
	work("one")
	m.must(m.engine.Checkpoint())
	outside("checkpoint")

	work("two")
	m.crash()
	h.killed(t, inVault)
	m.start()
	outside("replay")

	work("three")
	m.must(os.Chmod(m.path("one", "a", "moved"), 0o640))
	m.must(os.Chtimes(m.path("one", "a", "b", "fff"), time.Unix(1, 0), time.Unix(2, 0)))
	m.must(unix.Setxattr(m.path("one", "a", "b", "ffff"), "user.name", []byte("value"), 0))
	m.must(os.WriteFile(m.path("never synced"), patterned(100_000), 0o600))
	m.stop()
	if left := h.unsynced(t, inVault); len(left) > 0 {
		t.Errorf("the end: %d are not synced, %q first", len(left), left[0])
	}
	m.start()
	m.want(m.path("one", "a", "moved"), patterned(20_000))
	m.want(m.path("never synced"), patterned(100_000))
}
