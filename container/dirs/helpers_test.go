package dirs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"golang.org/x/sys/unix"
)

var (
	testRoot  = keys.ObjectID{0: 0xAA, 15: 1}
	testCodec = names.New(make([]byte, 64))
	testAttrs = xattrs.New(make([]byte, 64))
)

// vault is a host directory with a Tree on it.
type vault struct {
	*Tree
	t    testing.TB
	path string
	cfg  Config
	seq  atomic.Uint64
	saw  atomic.Uint64

	mu     sync.Mutex
	events []event.Event
}

func newVault(t testing.TB, set ...func(*Config)) *vault {
	v := &vault{t: t, path: t.TempDir()}
	ok(t, os.Mkdir(filepath.Join(v.path, configDir), 0o700))
	v.cfg = Config{
		RootID: testRoot, Codec: testCodec, Geometry: 9,
		NextSeq: func() (uint64, error) { return v.seq.Add(1), nil },
		SawSeq: func(s uint64) {
			for old := v.saw.Load(); s > old && !v.saw.CompareAndSwap(old, s); old = v.saw.Load() {
			}
		},
		Events: func(e event.Event) { v.mu.Lock(); v.events = append(v.events, e); v.mu.Unlock() },
	}
	for _, f := range set {
		f(&v.cfg)
	}
	v.mount()
	t.Cleanup(func() { v.Tree.Close(); v.cfg.Root.Close() })
	return v
}

// mount starts a new Tree on the host directory, as after an unmount.
func (v *vault) mount(set ...func(*Config)) {
	v.t.Helper()
	if v.Tree != nil {
		ok(v.t, v.Tree.Close())
		ok(v.t, v.cfg.Root.Close())
	}
	root, err := disk.OpenRoot(v.path)
	ok(v.t, err)
	v.cfg.Root = root
	for _, f := range set {
		f(&v.cfg)
	}
	v.Tree, err = New(v.cfg)
	ok(v.t, err)
	v.events = nil
}

// kinds answers the kinds of the events so far, sorted, and forgets them.
func (v *vault) kinds() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var s []string
	for _, e := range v.events {
		s = append(s, string(e.Kind))
	}
	v.events = nil
	sort.Strings(s)
	return strings.Join(s, " ")
}

func (v *vault) quiet() {
	v.t.Helper()
	v.mu.Lock()
	all := fmt.Sprint(v.events)
	v.mu.Unlock()
	if k := v.kinds(); k != "" {
		v.t.Fatalf("unexpected events: %s", all)
	}
}

// dir answers the Dir at path (names joined by slashes), released at the end of the test.
func (v *vault) dir(path string) *Dir {
	v.t.Helper()
	d := v.Root()
	for _, name := range strings.Split(path, "/") {
		if name == "" {
			continue
		}
		e, err := d.Lookup(name)
		ok(v.t, err)
		d, err = d.Child(name, e.ID)
		ok(v.t, err)
		v.t.Cleanup(d.Release)
	}
	return d
}

// hostPath answers where the object called name in d is on the host; parents are found through their descriptors' own paths.
func (v *vault) hostPath(d *Dir, name string) string {
	v.t.Helper()
	d.mu.RLock()
	n, known := d.links[name]
	d.mu.RUnlock()
	if !known {
		v.t.Fatalf("no such name: %q", name)
	}
	return filepath.Join(v.hostDir(d), d.hostName(name, n))
}

func (v *vault) hostDir(d *Dir) string {
	path := ""
	for ; d.parent != nil; d = d.parent {
		path = filepath.Join(d.host, path)
	}
	return filepath.Join(v.path, path)
}

// put makes a host object for a link that no Tree has made, as a crash or an attacker would leave it.
func (v *vault) put(d *Dir, l names.Link) string {
	v.t.Helper()
	host, sidecar := testCodec.Seal(d.ID(), l)
	path := filepath.Join(v.hostDir(d), host)
	if sidecar != nil {
		ok(v.t, os.WriteFile(names.SidecarName(path), sidecar, 0o600))
	}
	switch l.Type {
	case names.Dir:
		ok(v.t, os.Mkdir(path, 0o700))
	case names.Symlink:
		ok(v.t, os.Symlink(testCodec.SealTarget(l.ID, "target"), path))
	default:
		ok(v.t, os.WriteFile(path, []byte(l.ID.String()), 0o600))
	}
	return path
}

func fileLink(name string, seq uint64, flags names.Flags) names.Link {
	return names.Link{Type: names.File, Geometry: 9, Flags: flags, ID: keys.RandomObjectID(), Seq: seq, Name: name}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fails(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

func (v *vault) create(d *Dir, name string) Entry {
	v.t.Helper()
	f, e, err := d.CreateFile(name, 0o644, -1, -1)
	ok(v.t, err)
	_, err = f.WriteAt([]byte(e.ID.String()), 0)
	ok(v.t, err)
	ok(v.t, f.Close())
	return e
}

func (v *vault) mkdir(d *Dir, name string) *Dir {
	v.t.Helper()
	e, err := d.Mkdir(name, 0o755, -1, -1)
	ok(v.t, err)
	x, err := d.Child(name, e.ID)
	ok(v.t, err)
	v.t.Cleanup(x.Release)
	return x
}

// content reads the object id that create wrote.
func (v *vault) content(d *Dir, name string) string {
	v.t.Helper()
	e, err := d.Lookup(name)
	ok(v.t, err)
	f, err := d.Open(name, e.ID, disk.ReadOnly)
	ok(v.t, err)
	defer f.Close()
	b := make([]byte, 64)
	n, _ := f.ReadAt(b, 0)
	return string(b[:n])
}

func list(t testing.TB, d *Dir) string {
	t.Helper()
	all, err := d.Entries()
	ok(t, err)
	var s []string
	for _, e := range all {
		s = append(s, e.Name)
	}
	sort.Strings(s)
	return strings.Join(s, " ")
}

// tree answers the whole host tree as text: names, types, modes, sizes, times, contents.
func hostTree(t testing.TB, path string) string {
	t.Helper()
	var b strings.Builder
	ok(t, filepath.WalkDir(path, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d %d %v %v %d", p, st.Mode, st.Ino, st.Nlink, st.Mtim, st.Ctim, st.Size)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			c, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", c)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// hostCount counts host objects below a directory, .coffer left out.
func hostCount(t testing.TB, path string) int {
	t.Helper()
	n := -1
	ok(t, filepath.WalkDir(path, func(p string, e os.DirEntry, err error) error {
		if e.Name() == configDir {
			return filepath.SkipDir
		}
		n++
		return err
	}))
	return n
}

var longName = strings.Repeat("long", 63) // 252 bytes
