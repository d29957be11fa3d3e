package integration

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/fs"
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

// What the journal still holds of a range that became a hole does not come back over what was written there directly since.
func TestCrashFreed(t *testing.T) {
	t.Run("in the middle", func(t *testing.T) { crashFreed(t, 100*page) })
	t.Run("all of it", func(t *testing.T) { crashFreed(t, 256*page) }) // the metadata falls away with it
}

func crashFreed(t *testing.T, punched int64) {
	t.Helper()
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
	other, _, ofh, err := k.create(fuse.FUSE_ROOT_ID, "other")
	must(err)
	node, _, fh, err := k.create(fuse.FUSE_ROOT_ID, "file")
	must(err)
	must(k.write(node, fh, bytes.Repeat(stampedPage(1), 256), 0))
	must(k.fsync(node, fh, false))
	must(k.write(node, fh, bytes.Repeat(stampedPage(2), 3), 10*page)) // overwritten: in the journal
	must(k.fsync(node, fh, true))
	must(k.fallocate(node, fh, 0, punched, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE))
	must(k.fsync(node, fh, true))
	must(k.write(other, ofh, stampedPage(1), 0)) // a cut of so much has all be applied at once, which gives nothing up
	must(k.truncate(other, 4<<20))
	must(k.fsync(other, ofh, true))
	must(k.truncate(other, 0))
	must(k.write(node, fh, bytes.Repeat(stampedPage(3), 60), 0)) // more than rides in a transaction: written to its place only
	must(k.fsync(node, fh, true))

	for _, loss := range crashLosses() {
		c := m.Cut(loss, rand.New(rand.NewPCG(1, 1)))
		s, err := openCrash(c.Root(), mk, true)
		must(err)
		k := newKernel(s.FS)
		node, _, err := k.lookup(fuse.FUSE_ROOT_ID, "file")
		must(err)
		fh, err := k.open(node, unix.O_RDONLY)
		must(err)
		if got, err := k.read(node, fh, 0, 60*page); err != nil || !bytes.Equal(got, bytes.Repeat(stampedPage(3), 60)) {
			t.Errorf("%v: %d bytes, %v", loss, len(got), err)
		}
		must(k.close(node, fh, unix.O_RDONLY))
		must(s.Close())
	}
	s.abandon(m)
}

// A file of a session that ended cleanly stays one when it gets a new name: none of its names says that it may lack parts, so none may.
func TestCrashOldFileNewName(t *testing.T) {
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
	must(k.write(node, fh, bytes.Repeat(stampedPage(1), 15), 0))
	must(k.close(node, fh, unix.O_RDWR))
	must(s.Close())
	s, err = openCrash(m.Root(), mk, true)
	must(err)
	k = newKernel(s.FS)
	node, _, err = k.lookup(fuse.FUSE_ROOT_ID, "old")
	must(err)
	must(k.link(node, fuse.FUSE_ROOT_ID, "new"))
	k.forget(node)
	node, _, err = k.lookup(fuse.FUSE_ROOT_ID, "new")
	must(err)
	fh, err = k.open(node, unix.O_RDWR)
	must(err)
	must(k.write(node, fh, stampedPage(2), 15*page))
	must(k.close(node, fh, unix.O_RDWR))
	other, _, fh, err := k.create(fuse.FUSE_ROOT_ID, "other")
	must(err)
	must(k.write(other, fh, stampedPage(1), 0))
	must(k.fsync(other, fh, true))
	must(k.write(other, fh, stampedPage(2), 0))
	must(k.fsync(other, fh, true)) // of the journal, and so of what it says about the old file
	for _, loss := range crashLosses() {
		c := m.Cut(loss, rand.New(rand.NewPCG(1, 1)))
		s, err := openCrash(c.Root(), mk, true)
		must(err)
		k := newKernel(s.FS)
		node, a, err := k.lookup(fuse.FUSE_ROOT_ID, "old")
		must(err)
		fh, err := k.open(node, unix.O_RDONLY)
		must(err)
		if got, err := k.read(node, fh, 0, 15*page); err != nil || !bytes.Equal(got, bytes.Repeat(stampedPage(1), 15)) {
			t.Errorf("%v: %d bytes, %v", loss, len(got), err)
		}
		if a.Size > 15*page {
			if _, err := k.read(node, fh, 15*page, page); err != nil {
				t.Errorf("%v: the last page: %v", loss, err)
			}
		}
		must(k.close(node, fh, unix.O_RDONLY))
		must(s.Close())
	}
	s.abandon(m)
}

// What was made before a freeze is of a session that ended cleanly, also while it stays open: a power cut after the thaw takes nothing of it.
func TestCrashAfterFreeze(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, open := range []bool{true, false} {
		m, mk, err := newCrashDisk(vault.Params{})
		must(err)
		defer mk.Destroy()
		s, err := openCrash(m.Root(), mk, true)
		must(err)
		k := newKernel(s.FS)
		node, _, fh, err := k.create(fuse.FUSE_ROOT_ID, "old")
		must(err)
		must(k.write(node, fh, bytes.Repeat(stampedPage(1), 15), 0))
		if !open {
			must(k.close(node, fh, unix.O_RDWR))
		}
		z := fs.NewFreezer(s.Stack, fs.NewWatch(s.FS, nil), s.notes.event)
		must(z.Freeze(time.Minute))
		must(z.Thaw())
		if !open {
			fh, err = k.open(node, unix.O_RDWR)
			must(err)
		}
		must(k.write(node, fh, stampedPage(2), 15*page))
		must(k.close(node, fh, unix.O_RDWR))
		other, _, fh, err := k.create(fuse.FUSE_ROOT_ID, "other")
		must(err)
		must(k.write(other, fh, stampedPage(1), 0))
		must(k.fsync(other, fh, true))
		must(k.write(other, fh, stampedPage(2), 0))
		must(k.fsync(other, fh, true)) // of the journal, and so of what it says about the old file
		for _, loss := range crashLosses() {
			c := m.Cut(loss, rand.New(rand.NewPCG(1, 1)))
			s, err := openCrash(c.Root(), mk, true)
			must(err)
			k := newKernel(s.FS)
			node, a, err := k.lookup(fuse.FUSE_ROOT_ID, "old")
			must(err)
			fh, err := k.open(node, unix.O_RDONLY)
			must(err)
			if got, err := k.read(node, fh, 0, int(a.Size)); err != nil || !bytes.HasPrefix(got, bytes.Repeat(stampedPage(1), 15)) {
				t.Errorf("open %v, %v: %d bytes, %v", open, loss, len(got), err)
			}
			must(k.close(node, fh, unix.O_RDONLY))
			must(s.Close())
		}
		s.abandon(m)
	}
}

// A new file that was never synced is so before it takes the place of another one, also of one that the kernel has forgotten.
func TestCrashRenameOverForgotten(t *testing.T) {
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
	write := func(name string, data []byte, sync bool) {
		t.Helper()
		node, _, fh, err := k.create(fuse.FUSE_ROOT_ID, name)
		must(err)
		must(k.write(node, fh, data, 0))
		if sync {
			must(k.fsync(node, fh, false))
		}
		must(k.close(node, fh, unix.O_RDWR))
		k.forget(node)
	}
	old, replacement := bytes.Repeat([]byte("old "), 100), bytes.Repeat([]byte("new "), 4000)
	write("file", old, true)
	write("beside", replacement, false)
	_, _, err = k.lookup(fuse.FUSE_ROOT_ID, "beside") // as the kernel does
	must(err)
	must(k.rename(fuse.FUSE_ROOT_ID, "beside", fuse.FUSE_ROOT_ID, "file", 0))
	must(k.fsyncDir(fuse.FUSE_ROOT_ID))
	c := m.Cut(disktest.LoseAll, rand.New(rand.NewPCG(1, 1)))
	s.abandon(m)
	s, err = openCrash(c.Root(), mk, true)
	must(err)
	k = newKernel(s.FS)
	node, a, err := k.lookup(fuse.FUSE_ROOT_ID, "file")
	must(err)
	fh, err := k.open(node, unix.O_RDONLY)
	must(err)
	if got, err := k.read(node, fh, 0, int(a.Size)); err != nil || !bytes.Equal(got, old) && !bytes.Equal(got, replacement) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	must(k.close(node, fh, unix.O_RDONLY))
	must(s.Close())
}
