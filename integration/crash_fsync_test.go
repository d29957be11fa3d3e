package integration

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// fsync keeps a mode and extended attributes that were set before the kernel forgot the file and found it again, and fsync of a directory the
// directory's own.
func TestFsyncKeepsAttributes(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m, mk, err := newCrashDisk(vault.Params{})
	must(err)
	defer mk.Destroy()
	s, err := openCrash(m.Root(), mk, true)
	must(err)
	k := newKernel(s.FS)
	dir, _, err := k.mkdir(fuse.FUSE_ROOT_ID, "dir")
	must(err)
	node, _, fh, err := k.create(dir, "file")
	must(err)
	must(k.write(node, fh, []byte("content"), 0))
	must(k.fsync(node, fh, false))
	must(k.chmod(node, 0o640))
	must(k.setXattr(node, "user.a", "before"))
	must(k.close(node, fh, unix.O_RDWR))
	k.forget(node)
	node, _, err = k.lookup(dir, "file")
	must(err)
	fh, err = k.open(node, unix.O_RDWR)
	must(err)
	must(k.fsync(node, fh, false))
	must(k.fsyncDir(dir))
	must(k.chmod(dir, 0o750))
	must(k.fsyncDir(dir))
	must(k.setXattr(dir, "user.a", "directory"))
	must(k.fsyncDir(dir))
	must(k.setXattr(node, "user.b", "after"))
	must(k.fsync(node, fh, false))

	c := m.Cut(disktest.LoseAll, rand.New(rand.NewPCG(1, 1)))
	s.abandon(m)
	s, err = openCrash(c.Root(), mk, true)
	must(err)
	k = newKernel(s.FS)
	dir, a, err := k.lookup(fuse.FUSE_ROOT_ID, "dir")
	must(err)
	if a.Mode != unix.S_IFDIR|0o750 {
		t.Errorf("mode of the directory is %o", a.Mode)
	}
	file, a, err := k.lookup(dir, "file")
	must(err)
	for _, x := range []struct {
		node       uint64
		attr, want string
	}{{file, "user.a", "before"}, {file, "user.b", "after"}, {dir, "user.a", "directory"}} {
		if got, err := k.xattr(x.node, x.attr); err != nil || got != x.want {
			t.Errorf("%s: %q, %v", x.attr, got, err)
		}
	}
	if a.Mode != unix.S_IFREG|0o640 {
		t.Errorf("mode of the file is %o", a.Mode)
	}
	must(s.Close())
}

// A file of a session that ended cleanly is durable, also where the first sync of its life was the unmount's, and whatever names it gets later.
func TestNewNameOfOldFile(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m, mk, err := newCrashDisk(vault.Params{})
	must(err)
	defer mk.Destroy()
	s, err := openCrash(m.Root(), mk, true)
	must(err)
	k := newKernel(s.FS)
	node, _, fh, err := k.create(fuse.FUSE_ROOT_ID, "old")
	must(err)
	old := bytes.Repeat([]byte("old "), 2048)
	must(k.write(node, fh, old, 0))
	must(k.close(node, fh, unix.O_RDWR))
	must(s.Close())

	m.Record()
	s, err = openCrash(m.Root(), mk, true)
	must(err)
	k = newKernel(s.FS)
	node, _, err = k.lookup(fuse.FUSE_ROOT_ID, "old")
	must(err)
	must(k.link(node, fuse.FUSE_ROOT_ID, "new"))
	must(k.fsyncDir(fuse.FUSE_ROOT_ID))
	fh, err = k.open(node, unix.O_RDWR)
	must(err)
	must(k.write(node, fh, bytes.Repeat([]byte("more "), 20_000), 9000))
	must(k.close(node, fh, unix.O_RDWR))
	must(s.Engine.Checkpoint())
	must(k.truncate(node, 120_000))
	ops := m.Ops()
	defer s.abandon(m)
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		losses := disktest.PowerCuts()
		c := m.CutAt(rng.IntN(ops+1), losses[rng.IntN(len(losses))], rng)
		after, err := openCrash(c.Root(), mk, true)
		must(err)
		k := newKernel(after.FS)
		node, a, err := k.lookup(fuse.FUSE_ROOT_ID, "old")
		must(err)
		fh, err := k.open(node, unix.O_RDONLY)
		must(err)
		if got, err := k.read(node, fh, 0, int(a.Size)); err != nil || !bytes.HasPrefix(got, old) {
			t.Errorf("seed %d: %d bytes, %v: %v", seed, len(got), err, after.notes.all())
		}
		after.abandon(c)
	}
}
