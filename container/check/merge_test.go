package check

import (
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// TestRepairMerges makes one directory of two under one id, as a tool leaves them that brings back what was renamed.
func TestRepairMerges(t *testing.T) {
	r, _ := newMemoryRig(t)
	before := r.contentNow()
	r.open(true)
	e, err := r.tree.Root().Lookup("docs")
	r.must(err)
	codec := names.New(r.v.Ring().Names())
	seal := func(name string, seq uint64) string {
		host, _ := codec.Seal(r.v.Config().VaultID.Root(), names.Link{Type: names.Dir, ID: e.ID, Seq: seq, Name: name})
		return host
	}
	first, second := seal("docs", e.Seq), seal("older", e.Seq+1000)
	hostIn := func(name string) string {
		x, err := r.dir("docs", false).Lookup(name)
		r.must(err)
		host, _ := codec.Seal(e.ID, names.Link{Type: x.Type, Geometry: x.Geometry, Flags: x.Flags, ID: x.ID, Seq: x.Seq, Name: name})
		return host
	}
	tree, sparse := hostIn("tree"), hostIn("sparse")
	r.close()
	root := r.root()
	r.must(copyObject(root, first, root, second, nil))
	a, b := r.hostDirAt(root, first), r.hostDirAt(root, second)
	r.must(a.Unlink(sparse)) // it is in the second alone
	flipAt(r, b, tree, 4096+4096+5)

	_, found := r.verify()
	if text := lines(found); !strings.Contains(text, "a second directory under the id") || strings.Count(text, "\n") > 2 { // what rotted is in the one that is reached, or not
		t.Fatalf("found:\n%s", text)
	}
	_, kept, done := r.repair(false)
	after := r.contentNow()
	for _, k := range missing(before, after, "") {
		t.Errorf("lost: %q", k)
	}
	t.Logf("%d kept:\n%s", kept, actions(done))
	left, again := r.verify()
	if (left.Damage > 0) != (kept > 0) {
		t.Errorf("%d kept, and damage:\n%s", kept, lines(again))
	}
}

// TestRepairMergesAll leaves nothing of a second directory where all of it opens.
func TestRepairMergesAll(t *testing.T) {
	r, _ := newMemoryRig(t)
	before := r.contentNow()
	r.open(true)
	e, err := r.tree.Root().Lookup("docs")
	r.must(err)
	codec := names.New(r.v.Ring().Names())
	old := names.Link{Type: names.Dir, ID: e.ID, Seq: e.Seq, Name: "docs"}
	host, _ := codec.Seal(r.v.Config().VaultID.Root(), old)
	old.Name, old.Seq = "copy", e.Seq+1000
	second, _ := codec.Seal(r.v.Config().VaultID.Root(), old)
	r.close()
	root := r.root()
	r.must(copyObject(root, host, root, second, nil))
	if _, kept, done := r.repair(false); kept != 0 {
		t.Errorf("%d kept:\n%s", kept, actions(done))
	}
	if bad := missing(before, r.contentNow(), ""); len(bad) > 0 {
		t.Errorf("lost: %q", bad)
	}
	if _, found := r.verify(); len(found) > 0 {
		t.Errorf("found afterwards:\n%s", lines(found))
	}
}

// TestRepairStrips takes away the attributes that do not open, and no others.
func TestRepairStrips(t *testing.T) {
	r, _ := newMemoryRig(t)
	r.open(true)
	codec := r.config(new([]Finding)).Attrs
	e, err := r.tree.Root().Lookup("single")
	r.must(err)
	bad := codec.HostName(xattrs.Object{ID: e.ID}, "user.a")
	host, _ := names.New(r.v.Ring().Names()).Seal(r.v.Config().VaultID.Root(), names.Link{Type: e.Type, Geometry: e.Geometry, Flags: e.Flags, ID: e.ID, Seq: e.Seq, Name: "single"})
	r.close()
	r.must(r.root().Xattrs(host).Setxattr(bad, []byte("nothing that was sealed, ever"), 0))
	if sum, _ := r.verify(); sum.Damage != 1 {
		t.Fatalf("%+v", sum)
	}
	if _, kept, done := r.repair(false); kept != 0 || actions(done) != "removed single" || !strings.Contains(done[0].What, bad) {
		t.Errorf("%d kept: %+v", kept, done)
	}
	after := r.contentNow()
	if _, there := after["single#user.a"]; there || after["single#user.b"] != "b of single" {
		t.Errorf("attributes afterwards: %q %q", after["single#user.a"], after["single#user.b"])
	}
	if sum, _ := r.verify(); sum.Damage != 0 {
		t.Errorf("%+v", sum)
	}
}

func flipAt(r *rig, d disk.Dir, name string, at int64) {
	r.t.Helper()
	f, err := d.Open(name, disk.ReadWrite)
	r.must(err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	r.must(err)
	b[0] ^= 4
	_, err = f.WriteAt(b, at)
	r.must(err)
}
