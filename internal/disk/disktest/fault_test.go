package disktest_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

func TestFailCall(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	work := func() (errs []bool) {
		f, err := d.Create("f", 0o600)
		errs = append(errs, err != nil)
		if err == nil {
			_, err = f.WriteAt([]byte("x"), 0)
			errs = append(errs, err != nil, f.Datasync() != nil)
			ok(t, f.Close())
		}
		return append(errs, d.Unlink("f") != nil)
	}
	for n, want := range []string{"[true true]", "[false true false false]", "[false false true false]", "[false false false true]"} {
		m.SetFault(disktest.FailCall(n, syscall.EDQUOT))
		if got := fmt.Sprint(work()); got != want || !m.Struck() {
			t.Errorf("call %d: %s, want %s", n, got, want)
		}
	}
	m.SetFault(nil)
	ok(t, d.Unlink("f"))
	work()
	if m.Calls() != 5 || m.Struck() {
		t.Errorf("%d calls", m.Calls())
	}
	m.SetFault(disktest.FailFrom(1, syscall.EIO))
	f, err := d.Create("f", 0o600)
	ok(t, err)
	_, err = f.WriteAt([]byte("x"), 0)
	var pe *fs.PathError
	if !errors.Is(err, syscall.EIO) || !errors.As(err, &pe) {
		t.Errorf("write: %v", err)
	}
	if err := d.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	ok(t, f.Close())
}

func TestShort(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	f := create(t, d, "f", "----------")
	m.SetFault(disktest.FailCall(0, &disktest.Short{Keep: 3, Err: syscall.EIO}))
	n, err := f.WriteAt([]byte("abcdef"), 2)
	if n != 3 || !errors.Is(err, syscall.EIO) {
		t.Fatalf("%d, %v", n, err)
	}
	if got := content(t, d, "f"); got != "--abc-----" {
		t.Fatal(got)
	}
	m.SetFault(disktest.FailCall(0, &disktest.Short{Keep: 4, Err: syscall.EIO}))
	b := make([]byte, 8)
	n, err = f.ReadAt(b, 1)
	if n != 4 || !errors.Is(err, syscall.EIO) || string(b[:n]) != "-abc" {
		t.Fatalf("%d, %v, %q", n, err, b[:n])
	}
	m.SetFault(disktest.FailCall(0, &disktest.Short{Keep: 4, Err: syscall.ENOSPC}))
	if err := f.Truncate(0); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(b, 3); err != io.EOF {
		t.Fatal(err)
	}
}

func TestSpace(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	f := create(t, d, "f", "first")
	m.SetSpace(2*4096 + 100)
	put(t, f, "needs none", 100)
	n, err := f.WriteAt(make([]byte, 4*4096), 2048)
	if n != 2*4096+2048 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%d, %v", n, err)
	}
	var st unix.Statfs_t
	ok(t, d.Statfs(&st))
	if st.Bfree != 0 {
		t.Errorf("%d blocks are free", st.Bfree)
	}
	n, err = f.WriteAt([]byte("x"), 1<<20)
	if n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%d, %v", n, err)
	}
	ok(t, f.Punch(4096, 4096))
	g := create(t, d, "g", "fits")
	ok(t, d.Unlink("f"))
	if n, err = g.WriteAt([]byte("x"), 4096); n != 0 || err == nil {
		t.Fatal("a file that is open still takes its room")
	}
	ok(t, f.Close())
	put(t, g, "x", 4096)
	c := m.Cut(disktest.LoseNothing, newRNG(1)).Root()
	ok(t, c.Statfs(&st))
	if st.Bfree != 1 {
		t.Errorf("%d blocks are free after a cut", st.Bfree)
	}
}

// What a failed sync gave up is not made stable by one that succeeds, but it can be there.
func TestFailedSync(t *testing.T) {
	for _, op := range []string{"fdatasync", "fsync"} {
		m := disktest.NewMemory()
		d := m.Root()
		f := create(t, d, "f", "old")
		other := create(t, d, "other", "old")
		ok(t, d.SyncAll())
		sync := map[string]func() error{"fdatasync": f.Datasync, "fsync": f.Sync}[op]
		m.SetFault(disktest.FailSyncs("f", syscall.EIO))
		put(t, f, "new", 0)
		put(t, other, "new", 0)
		for range 2 {
			if err := sync(); !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
		}
		ok(t, other.Datasync())
		m.SetFault(nil)
		put(t, f, strings.Repeat("-", 512), 512)
		ok(t, sync())
		if got := content(t, d, "f")[:3]; got != "new" {
			t.Fatalf("read back %q", got)
		}
		both := func(d disk.Dir) string {
			s := content(t, d, "f")
			return fmt.Sprintf("%s%d %s", s[:3], strings.Count(s, "-"), content(t, d, "other"))
		}
		wantSeen(t, seen(m, disktest.LoseAll, 1, both), "old512 new")
		wantSeen(t, seen(m, disktest.LoseNothing, 1, both), "new512 new")
		wantSeen(t, seen(m, disktest.LoseSectors512, 40, both), "old512 new", "new512 new")
	}
}

func TestTrace(t *testing.T) {
	m := disktest.NewMemory()
	d := m.Root()
	var got []string
	m.SetTrace(func(op, name string, off int64, n int) {
		got = append(got, fmt.Sprintf("%s %s %d %d", op, name, off, n))
	})
	f := create(t, d, "f", "x")
	ok(t, d.Rename("f", d, "g", 0))
	put(t, f, "xyz", 5)
	ok(t, f.Truncate(7))
	ok(t, f.Datasync())
	ok(t, d.Sync())
	ok(t, f.Close())
	m.SetTrace(nil)
	ok(t, d.Sync())
	want := []string{"create f 0 0", "write f 0 1", "rename f 0 0", "write f 5 3", "truncate f 7 0", "fdatasync f 0 0", "fsync  0 0"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
