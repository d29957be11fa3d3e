package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// A host that new data has filled to the last block: what is stored can be truncated, overwritten and removed, for as long as there is a piece of the journal, and
// with its room new data is stored again.
func TestFullDisk(t *testing.T) {
	c := newCrashMount(t)
	c.disk.SetSpace(13 << 20)
	type file struct{ node, fh uint64 }
	var files []file
	data := bytes.Repeat(stampedPage(7), 100)
	var err error
	for i := 0; err == nil; i++ { // whole files, as cp makes them
		var f file
		if f.node, _, f.fh, err = c.create(fuse.FUSE_ROOT_ID, fmt.Sprint(i)); err != nil {
			break
		}
		for off := 0; off < 8 && err == nil; off++ {
			err = c.write(f.node, f.fh, data, int64(off*len(data)))
		}
		err = errors.Join(err, c.close(f.node, f.fh, unix.O_RDWR))
		if err == nil {
			files = append(files, f)
		}
		if i > 100 {
			t.Fatal("the disk does not get full")
		}
	}
	if !errors.Is(err, unix.ENOSPC) || len(files) < 1 {
		t.Fatalf("%d files, then %v", len(files), err)
	}
	c.disk.SetSpace(0)
	first := files[0]
	fh := c.opened(first.node, unix.O_RDWR)
	for i := range 800 { // more than a piece holds, in place
		c.must(c.write(first.node, fh, stampedPage(uint64(i)), int64(i%50)*page))
		c.must(c.fsync(first.node, fh, true))
	}
	c.must(c.truncate(first.node, 0))
	c.must(c.fsync(first.node, fh, false))
	c.must(c.close(first.node, fh, unix.O_RDWR))
	c.must(c.Engine.Checkpoint())
	fh = c.opened(first.node, unix.O_RDWR)
	c.must(c.write(first.node, fh, data, 0))
	c.must(c.fsync(first.node, fh, false))
	c.must(c.close(first.node, fh, unix.O_RDWR))
	for i := range 100 { // the last one failed, and may be there
		if err := c.unlink(fuse.FUSE_ROOT_ID, fmt.Sprint(i)); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	}
	c.unmount()
}

// What could not be handed over when its file was closed is so when there is room again, and then the file is closed.
func TestFullDiskAtClose(t *testing.T) {
	c := newCrashMount(t)
	data := bytes.Repeat(stampedPage(7), 10)
	node, fh := c.file(fuse.FUSE_ROOT_ID, "file", data)
	c.disk.SetSpace(0)
	if err := c.close(node, fh, unix.O_RDWR); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	c.forget(node)
	if c.FS.Nodes() < 2 {
		t.Fatal("the file is given up")
	}
	c.disk.SetSpace(1 << 30)
	c.must(c.Cache.FlushAll())
	for end := time.Now().Add(time.Minute); c.FS.Nodes() > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the file is not closed")
		}
	}
	if b, err := c.content("file"); err != nil || !bytes.Equal(b, data) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	c.unmount()
}

// A vault that is opened on a full disk: files can be read and removed at once, and after that everything works.
func TestFullDiskAtMount(t *testing.T) {
	c := newCrashMount(t)
	data := bytes.Repeat(stampedPage(7), 256)
	for i := range 12 {
		node, fh := c.file(fuse.FUSE_ROOT_ID, fmt.Sprint(i), data)
		c.must(c.close(node, fh, unix.O_RDWR))
	}
	killed := c.disk.Cut(disktest.Killed, rand.New(rand.NewPCG(1, 1)))
	c.unmount()
	for i, m := range []*disktest.Memory{c.disk, killed} {
		m.SetSpace(0)
		c := mountCrash(t, m, c.key)
		nodes := make([]uint64, 12)
		for i := range nodes {
			nodes[i], _ = c.known(fuse.FUSE_ROOT_ID, fmt.Sprint(i))
			if b, err := c.content(fmt.Sprint(i)); err != nil || !bytes.Equal(b, data) {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
		}
		node, fh := nodes[11], c.opened(nodes[11], unix.O_RDWR)
		// After the replay there is the room of the old journal.
		if err := errors.Join(c.write(node, fh, data[:page], 0), c.fsync(node, fh, false)); i == 0 && !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("a write that needs the journal, without room for one: %v", err)
		}
		for i := range 11 {
			c.must(c.unlink(fuse.FUSE_ROOT_ID, fmt.Sprint(i)))
			c.forget(nodes[i])
		}
		var err error
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if err = c.fsync(node, fh, false); err == nil || time.Now().After(end) {
				break
			}
		}
		c.must(err)
		c.must(c.truncate(node, 0))
		c.must(c.close(node, fh, unix.O_RDWR))
		c.unmount()
	}
}
