package fs

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// told lists the root, and answers the names that were given with attributes. Each is a lookup, and counted as one.
func (r earlyRig) told() (names []string) {
	r.Helper()
	var open fuse.OpenOut
	mustOK(r, r.OpenDir(nil, &fuse.OpenIn{InHeader: r.root}, &open))
	defer r.ReleaseDir(&fuse.ReleaseIn{InHeader: r.root, Fh: open.Fh})
	buf := make([]byte, 1<<16)
	mustOK(r, r.ReadDirPlus(nil, &fuse.ReadIn{InHeader: r.root, Fh: open.Fh, Size: uint32(len(buf))}, fuse.NewDirEntryList(buf, 0)))
	const entryOut, dirent = 128, 24 // and the name, all padded to 8
	listed := 0
	for {
		node, ino, n := binary.NativeEndian.Uint64(buf), binary.NativeEndian.Uint64(buf[entryOut:]), int(binary.NativeEndian.Uint32(buf[entryOut+16:]))
		if n == 0 {
			break
		}
		name := string(buf[entryOut+dirent:][:n])
		if ino == 0 {
			r.Errorf("%q is listed without an inode number", name)
		}
		listed++
		if node != 0 {
			names = append(names, name)
			r.Forget(node, 1)
		}
		buf = buf[entryOut+(dirent+n+7)/8*8:]
	}
	if want := len(r.links()) + 2; listed != want {
		r.Errorf("%d names are listed, want %d", listed, want)
	}
	return names
}

// links are the names of files in the root.
func (r earlyRig) links() map[string]bool {
	all, err := r.cfg.Tree.Root().Entries()
	if err != nil {
		r.Fatal(err)
	}
	m := map[string]bool{}
	for _, e := range all {
		m[e.Name] = true
	}
	return m
}

// A file that the kernel was told of is listed with its attributes again when something of it may have changed, when the kernel shows that it forgets, and when it
// forgot the file; and only then.
func TestListedAgain(t *testing.T) {
	r := newEarlyRig(t, 4)
	id := map[string]fuse.InHeader{}
	for i := range 4 {
		var out fuse.EntryOut
		mustOK(t, r.Lookup(nil, &r.root, fmt.Sprint(i), &out))
		id[fmt.Sprint(i)] = fuse.InHeader{NodeId: out.NodeId}
	}
	write := func(name string) {
		in, data := id[name], []byte("new")
		var open fuse.OpenOut
		mustOK(t, r.Open(nil, &fuse.OpenIn{InHeader: in, Flags: unix.O_WRONLY}, &open))
		_, status := r.Write(nil, &fuse.WriteIn{InHeader: in, Fh: open.Fh, Size: uint32(len(data))}, data)
		mustOK(t, status)
		if got := r.told(); !slices.Equal(got, []string{name}) {
			t.Errorf("while %s is written: %v", name, got)
		}
		mustOK(t, r.Flush(nil, &fuse.FlushIn{InHeader: in, Fh: open.Fh}))
		r.Release(nil, &fuse.ReleaseIn{InHeader: in, Fh: open.Fh})
	}
	setattr := func(name string, a fuse.SetAttrInCommon) {
		a.InHeader = id[name]
		mustOK(t, r.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: a}, new(fuse.AttrOut)))
	}
	all := []string{"0", "1", "2", "3"}
	for _, c := range []struct {
		what  string
		do    func()
		want  []string
		again []string
	}{
		{"at first, since each was looked up", func() {}, nil, nil},
		{"a chmod", func() { setattr("1", fuse.SetAttrInCommon{Valid: fuse.FATTR_MODE, Mode: 0o600}) }, []string{"1"}, nil},
		{"times", func() { setattr("2", fuse.SetAttrInCommon{Valid: fuse.FATTR_MTIME, Mtime: 77}) }, []string{"2"}, nil},
		{"a size", func() { setattr("0", fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE, Size: 10}) }, []string{"0"}, nil},
		{"a write", func() { write("2") }, []string{"2"}, nil},
		{"a read", func() {
			in := id["3"]
			mustOK(t, r.Open(nil, &fuse.OpenIn{InHeader: in}, new(fuse.OpenOut)))
			r.read(3, in)
			r.close(in)
		}, []string{"3"}, nil},
		{"an attribute", func() {
			in := fuse.SetXAttrIn{InHeader: id["1"], Size: 1}
			mustOK(t, r.SetXAttr(nil, &in, "user.a", []byte("b")))
		}, []string{"1"}, nil},
		{"a rename", func() {
			mustOK(t, r.Rename(nil, &fuse.RenameIn{InHeader: r.root, Newdir: r.root.NodeId}, "0", "5"))
		}, []string{"5"}, nil},
		{"and back", func() {
			mustOK(t, r.Rename(nil, &fuse.RenameIn{InHeader: r.root, Newdir: r.root.NodeId}, "5", "0"))
		}, []string{"0"}, nil},
		{"a second name", func() {
			mustOK(t, r.Link(nil, &fuse.LinkIn{InHeader: r.root, Oldnodeid: id["3"].NodeId}, "6", new(fuse.EntryOut)))
			r.Forget(id["3"].NodeId, 1)
		}, []string{"3", "6"}, []string{"3", "6"}},
		{"two names, always", func() {}, []string{"3", "6"}, []string{"3", "6"}},
		{"one again", func() { mustOK(t, r.Unlink(nil, &r.root, "6")) }, []string{"3"}, nil},
		{"a LOOKUP of a known name", func() {
			mustOK(t, r.Lookup(nil, &r.root, "1", new(fuse.EntryOut)))
			r.Forget(id["1"].NodeId, 1)
		}, []string{"0", "2", "3"}, nil},
		{"a file that the kernel forgot", func() { r.Forget(id["0"].NodeId, 1) }, []string{"0"}, []string{"0"}},
		{"and that nobody knows", func() {}, []string{"0"}, []string{"0"}}, // told forgets it again
		{"and that is open, which its RELEASE ends", func() {
			mustOK(t, r.Open(nil, &fuse.OpenIn{InHeader: id["1"]}, new(fuse.OpenOut)))
			r.Forget(id["1"].NodeId, 1)
		}, []string{"0", "1"}, []string{"0", "1"}},
		{"long after", func() { r.cfg.Timeout = 1 }, all, all},
	} {
		c.do()
		for r.lingering.Load() > 0 { // what waits in the journal keeps a file open, and closeLingering does not wait long
			r.closeLingering()
		}
		got := r.told()
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("%s: listed with attributes are %v, want %v", c.what, got, c.want)
		}
		again := r.told()
		if slices.Sort(again); !slices.Equal(again, c.again) {
			t.Errorf("%s: and then %v, want %v", c.what, again, c.again)
		}
	}
	r.close(id["1"])
	if want := map[string]bool{"0": true, "1": true, "2": true, "3": true}; !maps.Equal(r.links(), want) {
		t.Errorf("%v is there", r.links())
	}
}
