package fs

import (
	"fmt"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What is made, moved and removed again without a sync leaves nothing in memory but that the directories changed.
func TestUnsyncedIsForgotten(t *testing.T) {
	r := newEarlyRig(t, 0)
	inDir := func(i int) fuse.InHeader {
		var out fuse.EntryOut
		mustOK(t, r.Mkdir(nil, &fuse.MkdirIn{InHeader: r.root, Mode: 0o755}, fmt.Sprint("dir", i), &out))
		return fuse.InHeader{NodeId: out.NodeId}
	}
	create := func(in fuse.InHeader, name string) {
		var out fuse.CreateOut
		mustOK(t, r.Create(nil, &fuse.CreateIn{InHeader: in, Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o644}, name, &out))
		r.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: out.NodeId}, Fh: out.Fh})
		r.Forget(out.NodeId, 1)
	}
	for i := range 4 {
		in := inDir(i)
		create(in, "file")
		create(r.root, "old")
		create(r.root, "new")
		mustOK(t, r.Rename(nil, &fuse.RenameIn{InHeader: r.root, Newdir: r.root.NodeId}, "new", "old"))
		mustOK(t, r.Rename(nil, &fuse.RenameIn{InHeader: r.root, Newdir: in.NodeId}, "old", "moved"))
		mustOK(t, r.Unlink(nil, &in, "file"))
		mustOK(t, r.Unlink(nil, &in, "moved"))
		mustOK(t, r.Rmdir(nil, &r.root, fmt.Sprint("dir", i)))
		r.Forget(in.NodeId, 1)
	}
	for id, c := range r.unsynced {
		if id != r.FS.root.id || len(c.files) > 0 {
			t.Errorf("of directory %v %d files are noted", id, len(c.files))
		}
	}
	if c := r.unsynced[r.FS.root.id]; c == nil || c.other == 0 {
		t.Error("the root changed, and nothing says so")
	}
}
