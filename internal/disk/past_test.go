package disk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// TestReadPast: what is on the disk alone is read from there, and the host's memory holds no more of it than before; what is in memory, changed or not, is not read so. The
// second descriptor goes with the file.
func TestReadPast(t *testing.T) {
	const size, part = 256<<10 + 100, 64 << 10
	path := t.TempDir()
	root := openRoot(t, path)
	defer root.Close()
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i ^ i>>8)
	}
	if err := os.WriteFile(filepath.Join(path, "file"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	f, err := root.Open("file", false)
	if err != nil {
		t.Fatal(err)
	}
	read := f.(interface {
		ReadPast(p []byte, off int64) (n int, done bool, err error)
	}).ReadPast
	p := disk.DirectBuffer(part)
	if _, done, _ := read(p, 0); done {
		t.Error("what was just written was read past memory")
	}
	forget := func() {
		t.Helper()
		other, err := os.Open(filepath.Join(path, "file"))
		if err == nil {
			err = errors.Join(f.Sync(), unix.Fadvise(int(other.Fd()), 0, 0, unix.FADV_DONTNEED), other.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	forget()
	for range 2 { // the first leaves nothing in memory
		n, done, err := read(p, part)
		if !done {
			t.Skip("the host does not tell what it has in memory (kernel before 6.5), or reads nothing past it")
		}
		if n != part || err != nil || !bytes.Equal(p, want[part:2*part]) {
			t.Fatalf("%d bytes, %v; right: %v", n, err, bytes.Equal(p, want[part:2*part]))
		}
	}
	n, done, err := read(p, 4*part)
	if !done || n != 100 || err != io.EOF || !bytes.Equal(p[:n], want[4*part:]) {
		t.Errorf("at the end: %d bytes, %v, %v", n, done, err)
	}
	if _, err := f.WriteAt([]byte{1}, part+5); err != nil {
		t.Fatal(err)
	}
	if _, done, _ := read(p, part); done {
		t.Error("what waits in memory to be written was read past it")
	}
	want[part+5] = 1
	forget()
	if _, done, _ := read(p, part); !done || !bytes.Equal(p, want[part:2*part]) {
		t.Errorf("after a change: %v, right: %v", done, bytes.Equal(p, want[part:2*part]))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, done, _ := read(p, part); done {
		t.Error("a closed file was read")
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestWritePast: what is written past memory is there at once for who reads through it, whatever it held before, and stays out of it; what cannot be written so is left
// to WriteAt.
func TestWritePast(t *testing.T) {
	const block, before = 4096, 64 << 10
	path := t.TempDir()
	root := openRoot(t, path)
	defer root.Close()
	f, err := root.Create("file", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{9}, before)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	write := f.(interface {
		WritePast(bufs [][]byte, off int64) bool
	}).WritePast
	a, b := disk.DirectBuffer(3*block), disk.DirectBuffer(2*block)
	for i := range a {
		a[i] = byte(i ^ i>>8)
	}
	for i := range b {
		b[i] = byte(i>>4) | 1
	}
	if !write([][]byte{a, b}, 2*block) {
		t.Skip("the host writes nothing past its memory")
	}
	copy(want[2*block:], a)
	copy(want[5*block:], b)
	got := make([]byte, before)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, right: %v", err, bytes.Equal(got, want))
	}
	if !write([][]byte{b}, before) { // longer than it was
		t.Error("the end was not written")
	}
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil || st.Size != before+2*block {
		t.Errorf("%d bytes, %v", st.Size, err)
	}
	other, err := os.Open(filepath.Join(path, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var has unix.Cachestat_t
	if err := unix.Cachestat(uint(other.Fd()), &unix.CachestatRange{Off: before, Len: 2 * block}, &has, 0); err == nil && has.Cache > 0 {
		t.Errorf("%d pages of it are in memory", has.Cache)
	}
	if write([][]byte{b}, 100) || write([][]byte{b[:100]}, 0) {
		t.Error("parts of blocks were written past memory")
	}
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after what could not be: %v, right: %v", err, bytes.Equal(got, want))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if write([][]byte{b}, 0) {
		t.Error("a closed file was written")
	}
}
