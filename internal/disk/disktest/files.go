package disktest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

func testCreateOpen(t *testing.T, d disk.Dir) {
	_, err := d.Open("a", disk.ReadWrite)
	fails(t, err, syscall.ENOENT, "a")
	write(t, d, "a", "one")
	_, err = d.Create("a", 0o600)
	fails(t, err, syscall.EEXIST, "a")
	if got := read(t, d, "a"); got != "one" {
		t.Fatalf("read %q", got)
	}
	f, err := d.Open("a", disk.ReadOnly)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), 0)
	fails(t, err, syscall.EBADF, "")

	// Access is checked when a file is opened: one made read-only is still written by whoever made it.
	g, err := d.Create("b", 0o400)
	ok(t, err)
	defer g.Close()
	_, err = g.WriteAt([]byte("x"), 0)
	ok(t, err)
}

func testReadWrite(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	defer f.Close()
	n, err := f.ReadAt(make([]byte, 1), 0)
	if n != 0 || err != io.EOF {
		t.Fatalf("read of an empty file: %d, %v", n, err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB
	n, err = f.WriteAt(big, 4096)
	if n != len(big) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	got := make([]byte, len(big))
	n, err = f.ReadAt(got, 4096)
	if n != len(big) || err != nil || !bytes.Equal(got, big) {
		t.Fatalf("read: %d, %v", n, err)
	}
	n, err = f.ReadAt(got[:4096], 0)
	if n != 4096 || err != nil || !bytes.Equal(got[:4096], make([]byte, 4096)) {
		t.Fatalf("the gap before the first write is not zeros: %d, %v", n, err)
	}
	n, err = f.ReadAt(got, 4096+int64(len(big))-10)
	if n != 10 || err != io.EOF || string(got[:10]) != "6789abcdef" {
		t.Fatalf("read over the end: %d, %v", n, err)
	}
	n, err = f.ReadAt(nil, 0)
	if n != 0 || err != nil {
		t.Fatalf("empty read: %d, %v", n, err)
	}
	_, err = f.ReadAt(got[:1], -1)
	fails(t, err, syscall.EINVAL, "")
	_, err = f.WriteAt(got[:1], -1)
	fails(t, err, syscall.EINVAL, "")

	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte('A' + w)}, 5000)
			if _, err := f.WriteAt(p, int64(w)*5000); err != nil {
				t.Error(err)
			}
			q := make([]byte, 5000)
			if _, err := f.ReadAt(q, int64(w)*5000); err != nil || !bytes.Equal(p, q) {
				t.Errorf("worker %d reads something else, %v", w, err)
			}
		})
	}
	wg.Wait()
}

func testTruncatePunch(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteAt(bytes.Repeat([]byte{7}, 3*4096), 0)
	ok(t, err)
	switch err := f.Punch(4096, 4096); {
	case errors.Is(err, syscall.EOPNOTSUPP):
		t.Log("the host punches no holes")
	default:
		ok(t, err)
		b := make([]byte, 3*4096)
		_, err = f.ReadAt(b, 0)
		ok(t, err)
		want := bytes.Repeat([]byte{7}, 3*4096)
		clear(want[4096:8192])
		if !bytes.Equal(b, want) {
			t.Fatal("the hole is not where it was punched")
		}
		ok(t, f.Punch(1<<20, 4096)) // beyond the end: the length stays
		ok(t, f.Punch(0, 0))
	}
	var st unix.Stat_t
	ok(t, f.Stat(&st))
	if st.Size != 3*4096 {
		t.Fatalf("size %d after a punch", st.Size)
	}
	ok(t, f.Truncate(100))
	ok(t, f.Truncate(1<<33+1))
	ok(t, f.Stat(&st))
	if st.Size != 1<<33+1 {
		t.Fatalf("size %d after an extension", st.Size)
	}
	b := make([]byte, 200)
	_, err = f.ReadAt(b, 0)
	ok(t, err)
	if !bytes.Equal(b, append(bytes.Repeat([]byte{7}, 100), make([]byte, 100)...)) {
		t.Fatal("bytes cut off came back")
	}
	fails(t, f.Truncate(-1), syscall.EINVAL, "")
}

func testAllocate(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("content"), 0)
	ok(t, err)
	if err := f.Allocate(0, 1<<20); errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("the host reserves nothing")
	} else {
		ok(t, err)
	}
	ok(t, f.Allocate(5<<20, 0))
	var st unix.Stat_t
	ok(t, f.Stat(&st))
	if st.Size != 7 || st.Blocks < 1<<20/512 || read(t, d, "a") != "content" {
		t.Fatalf("%d bytes in %d blocks: %q", st.Size, st.Blocks, read(t, d, "a"))
	}
	fails(t, f.Allocate(-1, 10), syscall.EINVAL, "")
}

func testNotRegular(t *testing.T, d disk.Dir) {
	ok(t, d.Mkdir("dir", 0o700))
	ok(t, d.Mknod("fifo", unix.S_IFIFO|0o600, 0))
	ok(t, d.Mknod("sock", unix.S_IFSOCK|0o600, 0))
	write(t, d, "file", "x")
	ok(t, d.Symlink("file", "link"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, a := range []disk.Access{disk.ReadWrite, disk.ReadOnly} {
			for _, name := range []string{"dir", "fifo", "sock"} {
				f, err := d.Open(name, a)
				if !errors.Is(err, disk.ErrNotRegular) {
					t.Errorf("open %s, read-only %v: %v", name, a, err)
				}
				if err == nil {
					f.Close()
				}
			}
			if _, err := d.Open("link", a); !errors.Is(err, syscall.ELOOP) {
				t.Errorf("open of a symlink: %v", err)
			}
		}
		for _, name := range []string{"fifo", "sock", "file"} {
			if _, err := d.OpenDir(name); !errors.Is(err, syscall.ENOTDIR) {
				t.Errorf("open %s as a directory: %v", name, err)
			}
		}
		ok(t, d.Symlink("dir", "dirlink"))
		if _, err := d.OpenDir("dirlink"); !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.ELOOP) {
			t.Errorf("open of a symlink to a directory: %v", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("an open hangs")
	}
}

func testSync(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	defer f.Close()
	ok(t, f.Datasync())
	ok(t, f.Sync())
	ok(t, d.Sync())
	ok(t, d.SyncAll())
	var st unix.Statfs_t
	ok(t, d.Statfs(&st))
	if st.Bsize <= 0 || st.Namelen < 255 {
		t.Fatalf("block size %d, names of %d", st.Bsize, st.Namelen)
	}
}

func testDirect(t *testing.T, d disk.Dir) {
	const size = 8192
	write(t, d, "a", strings.Repeat("a", size))
	fails(t, refused(d.OpenDirect("none")), syscall.ENOENT, "none")
	ok(t, d.Mkdir("dir", 0o700))
	fails(t, refused(d.OpenDirect("dir")), disk.ErrNotRegular, "dir")
	f, err := d.OpenDirect("a")
	b := disk.DirectBuffer(3 * disk.DirectUnit)
	for i := range b {
		b[i] = 'b'
	}
	if err == nil {
		defer func() { _ = f.Close() }()
		_, err = f.WriteAt(b, 4096-disk.DirectUnit)
	}
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skipf("the host of the tests has no direct writes: %v", err)
	}
	ok(t, err)
	want := strings.Repeat("a", 4096-disk.DirectUnit) + string(b) + strings.Repeat("a", size-4096-2*disk.DirectUnit)
	if got := read(t, d, "a"); got != want {
		t.Errorf("%d bytes, they differ at %d", len(got), strings.IndexByte(got, 'b'))
	}
	for name, fn := range map[string]func() (int, error){
		"an odd offset": func() (int, error) { return f.WriteAt(b, 1) },
		"an odd length": func() (int, error) { return f.WriteAt(b[:100], 0) },
	} {
		if _, err := fn(); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range b {
		b[i] = 'c'
	}
	switch err := f.Begin(b, 4096); {
	case errors.Is(err, syscall.EOPNOTSUPP):
		t.Logf("the host of the tests begins no writes: %v", err)
	default:
		ok(t, err)
		ok(t, f.End())
		want = want[:4096] + string(b) + want[4096+len(b):]
		if got := read(t, d, "a"); got != want {
			t.Errorf("%d bytes, they differ at %d", len(got), strings.IndexByte(got, 'c'))
		}
		if err := f.Begin(b, 1); !errors.Is(err, syscall.EINVAL) && (err != nil || !errors.Is(f.End(), syscall.EINVAL)) {
			t.Errorf("an odd offset: %v", err)
		}
	}
}

func refused(f io.Closer, err error) error {
	if err == nil {
		f.Close()
	}
	return err
}

func testClose(t *testing.T, d disk.Dir) {
	f, err := d.Create("a", 0o600)
	ok(t, err)
	ok(t, f.Close())
	fails(t, f.Close(), syscall.EBADF, "")
	_, err = f.ReadAt(make([]byte, 1), 0)
	fails(t, err, syscall.EBADF, "")
	_, err = f.WriteAt(make([]byte, 1), 0)
	fails(t, err, syscall.EBADF, "")
	fails(t, f.Sync(), syscall.EBADF, "")
	ok(t, d.Mkdir("sub", 0o700))
	sub, err := d.OpenDir("sub")
	ok(t, err)
	ok(t, sub.Close())
	fails(t, sub.Close(), syscall.EBADF, "")
	_, err = sub.Create("a", 0o600)
	fails(t, err, syscall.EBADF, "a")
	fails(t, sub.List(func(string, uint64, uint8) error { return nil }), syscall.EBADF, "")
	fails(t, sub.SyncAll(), syscall.EBADF, "")
}
