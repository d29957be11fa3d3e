package integration

import (
	"bytes"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/fs"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// fsync keeps a mode and extended attributes that were set before the kernel forgot the file and found it again, and fsync of a directory the
// directory's own.
func TestFsyncKeepsAttributes(t *testing.T) {
	c := newCrashMount(t)
	dir, _, err := c.mkdir(fuse.FUSE_ROOT_ID, "dir")
	c.must(err)
	node, fh := c.file(dir, "file", []byte("content"))
	c.must(c.fsync(node, fh, false))
	c.must(c.chmod(node, 0o640))
	c.must(c.setXattr(node, "user.a", "before"))
	c.must(c.close(node, fh, unix.O_RDWR))
	c.forget(node)
	node, _ = c.known(dir, "file")
	fh = c.opened(node, unix.O_RDWR)
	c.must(c.fsync(node, fh, false))
	c.must(c.fsyncDir(dir))
	c.must(c.chmod(dir, 0o750))
	c.must(c.fsyncDir(dir))
	c.must(c.setXattr(dir, "user.a", "directory"))
	c.must(c.fsyncDir(dir))
	c.must(c.setXattr(node, "user.b", "after"))
	c.must(c.fsync(node, fh, false))

	after := c.cut(disktest.LoseAll)
	dir, a := after.known(fuse.FUSE_ROOT_ID, "dir")
	if a.Mode != unix.S_IFDIR|0o750 {
		t.Errorf("mode of the directory is %o", a.Mode)
	}
	file, a := after.known(dir, "file")
	if a.Mode != unix.S_IFREG|0o640 {
		t.Errorf("mode of the file is %o", a.Mode)
	}
	for _, x := range []struct {
		node       uint64
		attr, want string
	}{{file, "user.a", "before"}, {file, "user.b", "after"}, {dir, "user.a", "directory"}} {
		if got, err := after.xattr(x.node, x.attr); err != nil || got != x.want {
			t.Errorf("%s: %q, %v", x.attr, got, err)
		}
	}
	after.unmount()
}

// What the journal still holds of a range that became a hole does not come back over what was written there directly since.
func TestCrashFreed(t *testing.T) {
	t.Run("in the middle", func(t *testing.T) { crashFreed(t, 100*page) })
	t.Run("all of it", func(t *testing.T) { crashFreed(t, 256*page) }) // the metadata falls away with it
}

func crashFreed(t *testing.T, punched int64) {
	t.Helper()
	c := newCrashMount(t)
	other, _, ofh, err := c.create(fuse.FUSE_ROOT_ID, "other")
	c.must(err)
	node, fh := c.file(fuse.FUSE_ROOT_ID, "file", bytes.Repeat(stampedPage(1), 256))
	c.must(c.fsync(node, fh, false))
	c.must(c.write(node, fh, bytes.Repeat(stampedPage(2), 3), 10*page)) // overwritten: in the journal
	c.must(c.fsync(node, fh, true))
	c.must(c.fallocate(node, fh, 0, punched, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE))
	c.must(c.fsync(node, fh, true))
	c.must(c.write(other, ofh, stampedPage(1), 0)) // a cut of so much has all be applied at once, which gives nothing up
	c.must(c.truncate(other, 4<<20))
	c.must(c.fsync(other, ofh, true))
	c.must(c.truncate(other, 0))
	c.must(c.write(node, fh, bytes.Repeat(stampedPage(3), 60), 0)) // more than rides in a transaction: written to its place only
	c.must(c.fsync(node, fh, true))
	for _, loss := range crashLosses() {
		after := c.cut(loss)
		if got, err := after.content("file"); err != nil || !bytes.HasPrefix(got, bytes.Repeat(stampedPage(3), 60)) {
			t.Errorf("%v: %d bytes, %v", loss, len(got), err)
		}
		after.unmount()
	}
}

// otherSynced makes a file whose second fsync is one of the journal, and so of what that says about all others.
func (c *crashMount) otherSynced() {
	c.t.Helper()
	other, fh := c.file(fuse.FUSE_ROOT_ID, "other", stampedPage(1))
	c.must(c.fsync(other, fh, true))
	c.must(c.write(other, fh, stampedPage(2), 0))
	c.must(c.fsync(other, fh, true))
}

// keepsOld has all crashes leave the file "old" as it was, at least.
func (c *crashMount) keepsOld(old []byte) {
	c.t.Helper()
	for _, loss := range crashLosses() {
		after := c.cut(loss)
		if got, err := after.content("old"); err != nil || !bytes.HasPrefix(got, old) {
			c.t.Errorf("%v: %d bytes, %v", loss, len(got), err)
		}
		after.unmount()
	}
}

// A file of a session that ended cleanly stays one when it gets a new name: none of its names says that it may lack parts, so none may.
func TestCrashOldFileNewName(t *testing.T) {
	c, old := newCrashMount(t), bytes.Repeat(stampedPage(1), 15)
	node, fh := c.file(fuse.FUSE_ROOT_ID, "old", old)
	c.must(c.close(node, fh, unix.O_RDWR))
	c.unmount()
	c.mount()
	node, _ = c.known(fuse.FUSE_ROOT_ID, "old")
	c.must(c.link(node, fuse.FUSE_ROOT_ID, "new"))
	c.forget(node)
	node, _ = c.known(fuse.FUSE_ROOT_ID, "new")
	fh = c.opened(node, unix.O_RDWR)
	c.must(c.write(node, fh, stampedPage(2), 15*page))
	c.must(c.close(node, fh, unix.O_RDWR))
	c.otherSynced()
	c.keepsOld(old)
}

// What was made before a freeze is of a session that ended cleanly, also while it stays open: a power cut after the thaw takes nothing of it.
func TestCrashAfterFreeze(t *testing.T) {
	for name, open := range map[string]bool{"open": true, "closed": false} {
		t.Run(name, func(t *testing.T) {
			c, old := newCrashMount(t), bytes.Repeat(stampedPage(1), 15)
			node, fh := c.file(fuse.FUSE_ROOT_ID, "old", old)
			if !open {
				c.must(c.close(node, fh, unix.O_RDWR))
			}
			z := fs.NewFreezer(c.Stack, fs.NewWatch(c.FS, nil), c.notes.event)
			c.must(z.Freeze(time.Hour))
			c.must(z.Thaw())
			if !open {
				fh = c.opened(node, unix.O_RDWR)
			}
			c.must(c.write(node, fh, stampedPage(2), 15*page))
			c.must(c.close(node, fh, unix.O_RDWR))
			c.otherSynced()
			c.keepsOld(old)
		})
	}
}

// A new file that was never synced is so before it takes the place of another one, also of one that the kernel has forgotten.
func TestCrashRenameOverForgotten(t *testing.T) {
	c := newCrashMount(t)
	old, replacement := bytes.Repeat([]byte("old "), 100), bytes.Repeat([]byte("new "), 4000)
	node, fh := c.file(fuse.FUSE_ROOT_ID, "file", old)
	c.must(c.fsync(node, fh, false))
	c.must(c.close(node, fh, unix.O_RDWR))
	c.forget(node)
	node, fh = c.file(fuse.FUSE_ROOT_ID, "beside", replacement)
	c.must(c.close(node, fh, unix.O_RDWR))
	c.forget(node)
	c.known(fuse.FUSE_ROOT_ID, "beside") // as the kernel does
	c.must(c.rename(fuse.FUSE_ROOT_ID, "beside", fuse.FUSE_ROOT_ID, "file", 0))
	c.must(c.fsyncDir(fuse.FUSE_ROOT_ID))
	after := c.cut(disktest.LoseAll)
	if got, err := after.content("file"); err != nil || !bytes.Equal(got, old) && !bytes.Equal(got, replacement) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	after.unmount()
}

// fsync makes all names of a file durable, also one that the kernel forgot before it found the file again by another.
func TestCrashForgottenLink(t *testing.T) {
	for name, forgotten := range map[string]bool{"known": false, "forgotten": true} {
		t.Run(name, func(t *testing.T) {
			c := newCrashMount(t)
			dir, _, err := c.mkdir(fuse.FUSE_ROOT_ID, "dir")
			c.must(err)
			node, fh := c.file(fuse.FUSE_ROOT_ID, "old", stampedPage(1))
			c.must(c.fsync(node, fh, false))
			c.must(c.close(node, fh, unix.O_RDWR))
			c.must(c.fsyncDir(fuse.FUSE_ROOT_ID))
			c.must(c.Engine.Checkpoint()) // until then the file is open
			c.must(c.link(node, dir, "new"))
			if forgotten {
				c.forget(node)
				for end := time.Now().Add(time.Minute); c.FS.Nodes() > 2; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("the file is not forgotten")
					}
				}
				node, _ = c.known(fuse.FUSE_ROOT_ID, "old")
			}
			fh = c.opened(node, unix.O_RDWR)
			c.must(c.fsync(node, fh, false))
			c.must(c.close(node, fh, unix.O_RDWR))
			for _, loss := range crashLosses() {
				after := c.cut(loss)
				dir, _ := after.known(fuse.FUSE_ROOT_ID, "dir")
				if _, _, err := after.lookup(dir, "new"); err != nil {
					t.Errorf("%v: %v", loss, err)
				}
				after.unmount()
			}
		})
	}
}
