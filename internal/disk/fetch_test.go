package disk_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cofferfs/coffer/internal/disk"
	"golang.org/x/sys/unix"
)

// TestFetch: what was just written is in the host's memory, what it was told to forget is not, and what is fetched comes back there without a read.
func TestFetch(t *testing.T) {
	const size = 8 << 10
	path := t.TempDir()
	root := openRoot(t, path)
	defer root.Close()
	if err := os.WriteFile(filepath.Join(path, "file"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(filepath.Join(path, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	f, err := root.Open("file", disk.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	if disk.Fetch(f, size) {
		t.Error("what was just written is not in memory")
	}
	for _, err := range []error{other.Sync(), unix.Fadvise(int(other.Fd()), 0, 0, unix.FADV_DONTNEED)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var has unix.Cachestat_t
	if err := unix.Cachestat(uint(other.Fd()), &unix.CachestatRange{Len: size}, &has, 0); err != nil || has.Cache > 0 {
		t.Skipf("the host does not tell what it has in memory (kernel before 6.5), or keeps all there (tmpfs): %v, %d pages", err, has.Cache)
	}
	if !disk.Fetch(f, size) {
		t.Error("what was forgotten is in memory")
	}
	for end := time.Now().Add(10 * time.Second); has.Cache < size/4096; time.Sleep(time.Millisecond) {
		if err := unix.Cachestat(uint(other.Fd()), &unix.CachestatRange{Len: size}, &has, 0); err != nil || time.Now().After(end) {
			t.Fatalf("%d pages of what was fetched are in memory: %v", has.Cache, err)
		}
	}
	if disk.Fetch(f, size) {
		t.Error("what was fetched is not in memory")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if disk.Fetch(f, size) {
		t.Error("a closed file is not in memory")
	}
}
