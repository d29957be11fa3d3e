package fs

import (
	"testing"
	"testing/synctest"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A file that lingers for the journal, is opened again and loses its name goes with its last handle, and its room with it. In a bubble the time after which it
// lingers no more does not pass while anything runs, however slowly.
func TestLingerUnlinked(t *testing.T) { synctest.Test(t, testLingerUnlinked) }

func testLingerUnlinked(t *testing.T) {
	r := newEarlyRig(t, 1)
	var out fuse.EntryOut
	mustOK(t, r.Lookup(nil, &r.root, "0", &out))
	in := fuse.InHeader{NodeId: out.NodeId}
	open := func() (fh uint64) {
		var o fuse.OpenOut
		mustOK(t, r.Open(nil, &fuse.OpenIn{InHeader: in, Flags: unix.O_RDWR}, &o))
		return o.Fh
	}
	closed := func(fh uint64) {
		mustOK(t, r.Flush(nil, &fuse.FlushIn{InHeader: in, Fh: fh}))
		r.Release(nil, &fuse.ReleaseIn{InHeader: in, Fh: fh, Flags: unix.O_RDWR})
	}
	want := func(when string, n int64) {
		t.Helper()
		if got := r.lingering.Load(); got != n {
			t.Fatalf("%s %d files linger, want %d", when, got, n)
		}
	}
	fh := open()
	for range 2 { // the second time what is there is overwritten, which waits in the journal
		_, status := r.Write(nil, &fuse.WriteIn{InHeader: in, Fh: fh, Size: 8192}, make([]byte, 8192))
		mustOK(t, status)
		mustOK(t, r.Fsync(nil, &fuse.FsyncIn{InHeader: in, Fh: fh}))
	}
	closed(fh)
	want("after the close", 1)
	fh = open()
	mustOK(t, r.Unlink(nil, &r.root, "0"))
	closed(fh)
	r.Forget(in.NodeId, 1)
	want("after the file was forgotten", 0)
	if n := r.orphans.Load(); n != 0 {
		t.Errorf("%d files without a name are left", n)
	}
	if _, err := r.anyNode(in.NodeId); err == nil {
		t.Error("the inode is left")
	}
}
