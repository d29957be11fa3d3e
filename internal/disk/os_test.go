package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"golang.org/x/sys/unix"
)

func openRoot(t testing.TB, path string) disk.Dir {
	t.Helper()
	d, err := disk.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	disktest.TestDir(t, func(t *testing.T) disk.Dir { return openRoot(t, t.TempDir()) })
}

func TestOpenRoot(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	openRoot(t, filepath.Join(dir, "link")).Close()
	for name, want := range map[string]error{"none": syscall.ENOENT, "file": syscall.ENOTDIR} {
		_, err := disk.OpenRoot(filepath.Join(dir, name))
		var pe *fs.PathError
		if !errors.Is(err, want) || !errors.As(err, &pe) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nothing on the host changes by reading, access times included; symlinks only where root reads.
func TestOpenReadOnly(t *testing.T) {
	path := t.TempDir()
	root := openRoot(t, path)
	defer root.Close()
	for _, err := range []error{root.Mkdir("dir", 0o755), root.Symlink("target", "link")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := root.Create("file", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	past := [2]unix.Timespec{{Sec: 1000}, {Sec: 2000}} // so long ago that relatime would set them
	names := []string{"file", "dir", "link"}
	for _, name := range names {
		if err := root.Utimes(name, &past); err != nil {
			t.Fatal(err)
		}
	}
	if err := root.UtimesSelf(&past); err != nil {
		t.Fatal(err)
	}

	// Even what is open for writing leaves them alone, where that is wanted.
	n, err := disk.OpenNoAtime(path)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if f, err = n.Open("file", disk.ReadWrite); err == nil {
		_, _ = f.ReadAt(make([]byte, 10), 0)
		err = f.Close()
	}
	if err := errors.Join(err, n.List(func(string, uint64, uint8) error { return nil })); err != nil {
		t.Fatal(err)
	}

	d, err := disk.OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if f, err = d.Open("file", disk.ReadOnly); err == nil {
		_, _ = f.ReadAt(make([]byte, 10), 0)
		err = f.Close()
	}
	sub, serr := d.OpenDir("dir")
	if serr == nil {
		serr = errors.Join(sub.List(func(string, uint64, uint8) error { return nil }), sub.Close())
	}
	if err := errors.Join(err, serr, d.List(func(string, uint64, uint8) error { return nil })); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if _, err := d.Readlink("link"); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"mkdir": d.Mkdir("new", 0o755), "unlink": d.Unlink("file"), "chmod": d.Chmod("file", 0o600), "utimes": d.UtimesSelf(&past),
			"rename": d.Rename("file", d, "new", 0),
		} {
			if !errors.Is(err, syscall.EROFS) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := d.Open("file", disk.ReadWrite); !errors.Is(err, syscall.EROFS) {
			t.Errorf("open for writing: %v", err)
		}
	}
	var st unix.Stat_t
	for _, name := range names {
		if err := root.Stat(name, &st); err != nil || st.Atim.Sec != 1000 || st.Mtim.Sec != 2000 {
			t.Errorf("%s: atime %v, mtime %v, %v", name, st.Atim, st.Mtim, err)
		}
	}
	if err := root.StatSelf(&st); err != nil || st.Atim.Sec != 1000 {
		t.Errorf("the directory: atime %v, %v", st.Atim, err)
	}
	for name, want := range map[string]error{"none": syscall.ENOENT, "file": syscall.ENOTDIR} {
		if _, err := disk.OpenReadOnly(filepath.Join(path, name)); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A device in a file's place is refused, here one that would swallow every write.
func TestDeviceRefused(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skipf("needs /dev/full: %v", err)
	}
	d := openRoot(t, "/dev")
	defer d.Close()
	if f, err := d.Open("full", disk.ReadWrite); !errors.Is(err, disk.ErrNotRegular) {
		if err == nil {
			f.Close()
		}
		t.Fatalf("a device opens: %v", err)
	}
}

// Close beside running calls must neither close the descriptor under them nor leak it.
func TestCloseDuringCalls(t *testing.T) {
	path := t.TempDir()
	d := openRoot(t, path)
	defer d.Close()
	for range 50 {
		f, err := d.Create("a", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		var want unix.Stat_t
		if err := f.Stat(&want); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				var st unix.Stat_t
				for {
					err := f.Stat(&st)
					if errors.Is(err, syscall.EBADF) {
						return
					}
					if err != nil || st.Ino != want.Ino {
						t.Errorf("inode %d, want %d, %v", st.Ino, want.Ino, err)
						return
					}
				}
			})
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if err := d.Unlink("a"); err != nil {
			t.Fatal(err)
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if len(fds) > 40 {
		t.Errorf("%d descriptors are open", len(fds))
	}
}

func TestNextData(t *testing.T) {
	d := openRoot(t, t.TempDir())
	defer d.Close()
	f, err := d.Create("sparse", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const at, size = 64 << 20, 128 << 20
	if _, err := f.WriteAt([]byte("data"), at); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ off, least, most int64 }{{0, 0, at}, {at + 2, at + 2, at + 2}, {at + 32<<20, at + 32<<20, size}} {
		got, err := f.(interface{ NextData(int64) (int64, error) }).NextData(c.off)
		if err != nil || got < c.least || got > c.most { // a host without holes has data everywhere
			t.Errorf("from %d: %d, %v", c.off, got, err)
		}
	}
}

func TestReadWriteAllocateNothing(t *testing.T) {
	d := openRoot(t, t.TempDir())
	defer d.Close()
	f, err := d.Create("a", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := f.WriteAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkStat(b *testing.B) {
	d := openRoot(b, b.TempDir())
	defer d.Close()
	f, err := d.Create("a", 0o600)
	if err != nil {
		b.Fatal(err)
	}
	f.Close()
	var st unix.Stat_t
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Stat("a", &st); err != nil {
			b.Fatal(err)
		}
	}
}

// Without times stat says the same.
func TestStatTimeless(t *testing.T) {
	d := openRoot(t, t.TempDir())
	defer d.Close()
	f, err := d.Create("f", 0o640)
	if err == nil {
		defer f.Close()
		_, err = f.WriteAt(make([]byte, 5000), 0)
	}
	if err == nil {
		err = errors.Join(f.Sync(), d.Link("f", d, "g"))
	}
	if err != nil {
		t.Fatal(err)
	}
	var want, got unix.Stat_t
	if err := errors.Join(f.Stat(&want), f.(interface{ StatTimeless(*unix.Stat_t) error }).StatTimeless(&got)); err != nil {
		t.Fatal(err)
	}
	if got.Mtim != (unix.Timespec{}) || got.Ctim != (unix.Timespec{}) {
		t.Errorf("times %v, %v", got.Mtim, got.Ctim)
	}
	got.Mtim, got.Ctim = want.Mtim, want.Ctim
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The times of a file that was just made are those of its birth, until it is changed.
func TestStatNew(t *testing.T) {
	d := openRoot(t, t.TempDir())
	defer d.Close()
	f, err := d.Create("f", 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var want, got unix.Stat_t
	if err := errors.Join(disk.StatNew(f, &got), f.Stat(&want)); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestSettle: bringing a range to the disk is no error, also where it ends beyond the file; what cannot be done is.
func TestSettle(t *testing.T) {
	d := openRoot(t, t.TempDir())
	defer d.Close()
	f, err := d.Create("f", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 32<<10), 4096); err != nil {
		t.Fatal(err)
	}
	settle := f.(interface{ Settle(off, n int64) error }).Settle
	for _, r := range [][2]int64{{0, 8192}, {8192, 1 << 20}} {
		if err := settle(r[0], r[1]); err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := settle(0, 4096); !errors.Is(err, syscall.EBADF) {
		t.Errorf("of a closed file: %v", err)
	}
}
