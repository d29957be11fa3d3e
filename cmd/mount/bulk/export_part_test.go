package bulk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
)

// fakeFile is a file to export, whose reads fail from an offset on.
type fakeFile struct {
	plain.Node
	st     plain.Stat
	data   []byte
	failAt int64
	mu     sync.Mutex // guards read
	read   int64      // the lowest offset that was read
}

var errPulled = errors.New("pulled out")

func (f *fakeFile) Name() string                             { return "f" }
func (f *fakeFile) Release()                                 {}
func (f *fakeFile) Stat() (plain.Stat, error)                { return f.st, nil }
func (f *fakeFile) Child(string) (plain.Node, error)         { return f, nil }
func (f *fakeFile) Open() (plain.File, error)                { f.read = f.Size(); return f, nil }
func (f *fakeFile) Xattrs(string) (map[string][]byte, error) { return nil, nil }
func (f *fakeFile) Size() int64                              { return int64(len(f.data)) }
func (f *fakeFile) NextData(off int64) (int64, bool, error)  { return off, true, nil }
func (f *fakeFile) NextHole(_, limit int64) (int64, error)   { return limit, nil }
func (f *fakeFile) Close() error                             { return nil }
func (f *fakeFile) ReadAt(p []byte, off int64) (n int, e error) {
	if off+int64(len(p)) > f.failAt {
		return 0, errPulled
	}
	f.mu.Lock()
	f.read = min(f.read, off)
	f.mu.Unlock()
	return bytes.NewReader(f.data).ReadAt(p, off)
}

// exportOne copies f to dir/f and says what was told and counted.
func exportOne(t *testing.T, f *fakeFile, dir string) (told error, sum Summary) {
	t.Helper()
	e := &Export{large: 16 << 20, Damage: func(error) bool { return false }, Failed: func(_ string, err error) { told = errors.Join(told, err) }}
	if err := e.Run(context.Background(), dir, []Job{{f, "f"}}); err != nil {
		t.Fatal(err)
	}
	if told == nil {
		if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, f.data) {
			t.Errorf("the copy: %d bytes of %d, the right ones: %v; %v", len(got), len(f.data), bytes.Equal(got, f.data), err)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
			t.Errorf("left over: %v, %v", all, err)
		}
	} else if _, err := os.Lstat(filepath.Join(dir, "f")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a file has its name: %v", err)
	}
	left, part := e.Unfinished(), filepath.Join(dir, tempName("f")+partSuffix)
	if errors.Is(told, errPulled) != slices.Equal(left, []string{part}) || told == nil && len(left) > 0 {
		t.Errorf("told %v, unfinished: %v", told, left)
	}
	return told, e.Summary()
}

// TestExportGoesOn interrupts the copy of a large file and changes what the next one finds: it goes on where the file was, if nothing speaks against that, and
// the copy is right in any case.
func TestExportGoesOn(t *testing.T) {
	noLeaks(t)
	data := make([]byte, 50<<20+123)
	rand.NewChaCha8([32]byte{3}).Read(data)
	st := plain.Stat{
		Mode: unix.S_IFREG | 0o640, Size: int64(len(data)), Nlink: 1, Object: "1", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		Mtime: unix.Timespec{Sec: 1e9, Nsec: 5}, Atime: unix.Timespec{Sec: 1e9}, Ctime: unix.Timespec{Sec: 2e9},
	}
	part := tempName("f") + partSuffix
	for _, c := range []struct {
		name   string
		change func(f *fakeFile, part string) error
		goesOn bool
		runs   int
	}{
		{"nothing", nil, true, 2},
		{"a write behind the resume point", func(_ *fakeFile, part string) error { return writeByte(part, 48<<20) }, true, 2},
		{"one resume point torn", func(_ *fakeFile, part string) error { return writeByte(part, st.Size+20) }, true, 1},
		{"both resume points torn", func(_ *fakeFile, part string) error {
			return errors.Join(writeByte(part, st.Size+20), writeByte(part, st.Size+pointSize+20))
		}, false, 2},
		{"cut", func(_ *fakeFile, part string) error { return os.Truncate(part, 30<<20) }, false, 2},
		{"longer", func(_ *fakeFile, part string) error { return os.Truncate(part, st.Size+1000) }, false, 2},
		{"all there, but for its name", func(f *fakeFile, part string) error {
			err := os.WriteFile(part, f.data, 0o600)
			return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, part, []unix.Timespec{st.Atime, st.Mtime}, 0))
		}, true, 2},
		{"as long, and of no time", func(f *fakeFile, part string) error { return os.WriteFile(part, make([]byte, len(f.data)), 0o600) }, false, 1},
		{"another object", func(f *fakeFile, _ string) error { f.st.Object, f.data = "2", reversed(f.data); return nil }, false, 1},
		{"another mtime", func(f *fakeFile, _ string) error { f.st.Mtime.Nsec++; f.data = reversed(f.data); return nil }, false, 1},
		{"another ctime", func(f *fakeFile, _ string) error { f.st.Ctime.Nsec++; return nil }, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			f := &fakeFile{st: st, data: data, failAt: 42 << 20}
			for range c.runs { // also twice at the same place
				if told, _ := exportOne(t, f, dir); !errors.Is(told, errPulled) {
					t.Fatalf("told %v", told)
				}
			}
			if c.change != nil {
				if err := c.change(f, filepath.Join(dir, part)); err != nil {
					t.Fatal(err)
				}
			}
			f.failAt = st.Size
			told, sum := exportOne(t, f, dir)
			if told != nil || (sum.Reused >= 16<<20) != c.goesOn || (f.read > 0) != c.goesOn || sum.Bytes+sum.Reused != st.Size {
				t.Errorf("told %v, %d bytes of an earlier run and %d more, read from %d on", told, sum.Reused, sum.Bytes, f.read)
			}
		})
	}
}

func reversed(b []byte) []byte {
	r := make([]byte, len(b))
	for i, c := range b {
		r[len(r)-1-i] = c
	}
	return r
}

func writeByte(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil && err != io.EOF {
		return err
	}
	_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
	return err
}

// TestExportPartNotOurs: a file that another user may change, or that another process writes, is not gone on with.
func TestExportPartNotOurs(t *testing.T) {
	noLeaks(t)
	f := &fakeFile{st: plain.Stat{Mode: unix.S_IFREG | 0o600, Size: 20 << 20, Nlink: 1, Object: "1"}, data: make([]byte, 20<<20), failAt: 20 << 20}
	dir := t.TempDir()
	part := filepath.Join(dir, tempName("f")+partSuffix)
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(part)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if told, _ := exportOne(t, f, dir); !errors.Is(told, errBusy) {
		t.Errorf("locked: told %v", told)
	}
	held.Close()
	if err := os.Link(part, filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if told, _ := exportOne(t, f, dir); !errors.Is(told, unix.EEXIST) {
		t.Errorf("with another name: told %v", told)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "other")), os.Remove(part), os.Symlink("elsewhere", part)); err != nil {
		t.Fatal(err)
	}
	if told, _ := exportOne(t, f, dir); !errors.Is(told, unix.ELOOP) {
		t.Errorf("a symlink: told %v", told)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Remove(part), os.WriteFile(part, nil, 0o666), os.Chown(part, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		if told, _ := exportOne(t, f, dir); !errors.Is(told, unix.EEXIST) {
			t.Errorf("another user's: told %v", told)
		}
	}
}
