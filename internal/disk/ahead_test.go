package disk

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What is begun on btrfs may not be durable when it ends: it is refused there, on a file that takes it elsewhere.
func TestBeginLeavesOutBtrfs(t *testing.T) {
	root, err := OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := root.Create("f", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p := DirectBuffer(os.Getpagesize())
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	d, err := root.OpenDirect("f")
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL) {
		t.Skip("a host that writes nothing past its memory")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.(*osDirect).magic = unix.BTRFS_SUPER_MAGIC
	err = d.Begin(p, 0)
	if err == nil {
		err = d.End()
	}
	if !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("%v", err)
	}
	if _, err := d.WriteAt(p, 0); err != nil {
		t.Errorf("a write without: %v", err)
	}
}
