package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Beyond a number of inodes the kernel is made to forget those that nobody uses; what is open, and what is found again, is as it was.
func TestForgetsBeyondLimit(t *testing.T) {
	const limit, files = 500, 2000
	m := mount(t, options{maxNodes: limit})
	if !m.server.KernelSettings().SupportsNotify(fuse.NOTIFY_PRUNE) {
		t.Skip("this kernel cannot be asked to forget (Linux 6.18 can)")
	}
	f := m.open("open", os.O_RDWR|os.O_CREATE)
	_, err := f.WriteString("still open")
	m.must(err)
	first := m.write("first", []byte("first"))
	ino := lstat(t, first).Ino
	for i := range files {
		m.must(os.WriteFile(m.path(fmt.Sprint("file", i)), fmt.Append(nil, i), 0o600))
	}
	for try := 0; m.fs.Nodes() > files/2; try++ {
		if try == 6000 {
			t.Fatalf("the kernel still knows %d of %d files", m.fs.Nodes(), files)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for i := 0; i < files; i += 113 {
		m.want(m.path(fmt.Sprint("file", i)), fmt.Append(nil, i))
	}
	m.want(first, []byte("first"))
	if got := lstat(t, first).Ino; got != ino {
		t.Errorf("inode %d became %d", ino, got)
	}
	_, err = f.WriteString(" and written")
	m.must(err)
	m.want(f.Name(), []byte("still open and written"))
	m.must(f.Close())
	m.remount()
	m.want(m.path("open"), []byte("still open and written"))
	if n := len(listing(t, m.dir)); n != files+2 {
		t.Errorf("%d names", n)
	}
}
