package fs

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// earlyRig is a vault of files that the kernel does not know.
type earlyRig struct {
	*testing.T
	*FS
	root fuse.InHeader
}

func (r earlyRig) content(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "file %d\n", i), 700) }

func newEarlyRig(t *testing.T, files int) earlyRig {
	r := earlyRig{t, benchStack(t).FS, fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}}
	for i := range files {
		var out fuse.CreateOut
		mustOK(t, r.Create(nil, &fuse.CreateIn{InHeader: r.root, Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o644}, fmt.Sprint(i), &out))
		in := fuse.InHeader{NodeId: out.NodeId}
		data := r.content(i)
		_, status := r.Write(nil, &fuse.WriteIn{InHeader: in, Fh: out.Fh, Size: uint32(len(data))}, data)
		mustOK(t, status)
		mustOK(t, r.Flush(nil, &fuse.FlushIn{InHeader: in, Fh: out.Fh}))
		r.Release(nil, &fuse.ReleaseIn{InHeader: in, Fh: out.Fh})
		r.Forget(out.NodeId, 1)
	}
	r.want(0)
	return r
}

// want fails the test unless so many files are open for a READ to come.
func (r earlyRig) want(n int64) {
	r.Helper()
	if got := r.early.Load(); got != n {
		r.Errorf("%d files are open for a READ to come, want %d", got, n)
	}
}

func (r earlyRig) open(i int) (in fuse.InHeader) {
	r.Helper()
	var out fuse.EntryOut
	mustOK(r, r.Lookup(nil, &r.root, fmt.Sprint(i), &out))
	in.NodeId = out.NodeId
	mustOK(r, r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)))
	return in
}

func (r earlyRig) read(i int, in fuse.InHeader) {
	r.Helper()
	want := r.content(i)
	res, status := r.Read(nil, &fuse.ReadIn{InHeader: in, Size: 1 << 16}, make([]byte, 1<<16))
	mustOK(r, status)
	if got, _ := res.Bytes(nil); !bytes.Equal(got, want) {
		r.Errorf("file %d: %d bytes, want %d", i, len(got), len(want))
	}
}

func (r earlyRig) close(in fuse.InHeader) { r.Release(nil, &fuse.ReleaseIn{InHeader: in}) }

// A file that is opened is opened on the host as well, once, for the READ that follows; without one it is closed with the handle.
func TestEarlyOpen(t *testing.T) {
	r := newEarlyRig(t, 2)
	in := r.open(0)
	r.want(1)
	r.read(0, in)
	r.want(0)
	r.close(in)
	mustOK(t, r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)))
	r.want(0) // the kernel has what was read
	r.close(in)
	in = r.open(1)
	mustOK(t, r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)))
	r.want(1)
	r.close(in)
	r.want(1)
	r.close(in)
	r.want(0)
}

// What was opened for a READ to come serves it after the last name is gone, also where the kernel forgets the file without one.
func TestEarlyOpenUnlinked(t *testing.T) {
	r := newEarlyRig(t, 2)
	for i := range 2 {
		in := r.open(i)
		r.want(1)
		mustOK(t, r.Unlink(nil, &r.root, fmt.Sprint(i)))
		r.want(0)
		if i == 0 {
			r.read(i, in)
		}
		r.close(in)
		r.Forget(in.NodeId, 1)
	}
	if n := r.orphans.Load(); n != 0 {
		t.Errorf("%d files without a name are left", n)
	}
}

// A file that was just synced, and that another one replaces between the kernel's LOOKUP and its OPEN, can still be opened and read: the kernel looks a path up
// only once again, and programs that read what is saved over and over would see ESTALE. In a bubble what waits in the journal waits on, however slow the machine.
func TestOpenOfReplaced(t *testing.T) { synctest.Test(t, testOpenOfReplaced) }

func testOpenOfReplaced(t *testing.T) {
	r := newEarlyRig(t, 1)
	var out fuse.CreateOut
	mustOK(t, r.Create(nil, &fuse.CreateIn{InHeader: r.root, Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o644}, "saved", &out))
	in := fuse.InHeader{NodeId: out.NodeId}
	data := r.content(0)
	_, status := r.Write(nil, &fuse.WriteIn{InHeader: in, Fh: out.Fh, Size: uint32(len(data))}, data)
	mustOK(t, status)
	mustOK(t, r.Fsync(nil, &fuse.FsyncIn{InHeader: in, Fh: out.Fh}))
	r.Release(nil, &fuse.ReleaseIn{InHeader: in, Fh: out.Fh})
	if r.lingering.Load() == 0 {
		t.Fatal("nothing of the file waits in the journal")
	}
	mustOK(t, r.Rename(nil, &fuse.RenameIn{InHeader: r.root, Newdir: r.root.NodeId}, "0", "saved"))
	mustOK(t, r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)))
	r.read(0, in)
	r.close(in)
	r.Forget(in.NodeId, 1)
	if n := r.orphans.Load(); n != 0 {
		t.Errorf("%d files without a name are left", n)
	}
}

// No more than mostEarly wait at a time: the others are opened when they are read.
func TestEarlyOpensAreBounded(t *testing.T) {
	const files = mostEarly + 6
	r := newEarlyRig(t, files)
	var open []fuse.InHeader
	for i := range files {
		open = append(open, r.open(i))
	}
	r.want(mostEarly)
	for i, in := range open {
		r.read(i, in)
	}
	r.want(0)
	for _, in := range open {
		r.close(in)
	}
	r.want(0)
}
