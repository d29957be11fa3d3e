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
	base := newCrashBase(t, crashParams()[0])
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m := base.disk.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
	s, err := openCrash(m.Root(), base.key, true)
	must(err)
	k := newKernel(s.FS)
	m.SetSpace(13 << 20)
	type file struct{ node, fh uint64 }
	var files []file
	data := bytes.Repeat(stampedPage(7), 100)
	for i := 0; err == nil; i++ { // whole files, as cp makes them
		var f file
		if f.node, _, f.fh, err = k.create(fuse.FUSE_ROOT_ID, fmt.Sprint(i)); err != nil {
			break
		}
		for off := 0; off < 8 && err == nil; off++ {
			err = k.write(f.node, f.fh, data, int64(off*len(data)))
		}
		err = errors.Join(err, k.close(f.node, f.fh, unix.O_RDWR))
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
	m.SetSpace(0)
	first := files[0]
	fh, err := k.open(first.node, unix.O_RDWR)
	must(err)
	for i := range 800 { // more than a piece holds, in place
		must(k.write(first.node, fh, stampedPage(uint64(i)), int64(i%50)*page))
		must(k.fsync(first.node, fh, true))
	}
	must(k.truncate(first.node, 0))
	must(k.fsync(first.node, fh, false))
	must(k.close(first.node, fh, unix.O_RDWR))
	must(s.Engine.Checkpoint())
	fh, err = k.open(first.node, unix.O_RDWR)
	must(err)
	must(k.write(first.node, fh, data, 0))
	must(k.fsync(first.node, fh, false))
	must(k.close(first.node, fh, unix.O_RDWR))
	for i := range 100 { // the last one failed, and may be there
		if err := k.unlink(fuse.FUSE_ROOT_ID, fmt.Sprint(i)); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	}
	must(s.Close())
}

// A vault that is opened on a full disk: files can be read and removed at once, and after that everything works.
func TestFullDiskAtMount(t *testing.T) {
	base := newCrashBase(t, crashParams()[0])
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m := base.disk.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
	s, err := openCrash(m.Root(), base.key, true)
	must(err)
	k := newKernel(s.FS)
	data := bytes.Repeat(stampedPage(7), 256)
	for i := range 12 {
		node, _, fh, err := k.create(fuse.FUSE_ROOT_ID, fmt.Sprint(i))
		must(err)
		must(k.write(node, fh, data, 0))
		must(k.close(node, fh, unix.O_RDWR))
	}
	killed := m.Cut(disktest.Killed, rand.New(rand.NewPCG(1, 1)))
	must(s.Close())
	for i, m := range []*disktest.Memory{m, killed} {
		m.SetSpace(0)
		s, err := openCrash(m.Root(), base.key, true)
		must(err)
		k := newKernel(s.FS)
		nodes := make([]uint64, 12)
		for i := range nodes {
			node, a, err := k.lookup(fuse.FUSE_ROOT_ID, fmt.Sprint(i))
			must(err)
			nodes[i] = node
			fh, err := k.open(node, unix.O_RDONLY)
			must(err)
			if b, err := k.read(node, fh, 0, len(data)); err != nil || !bytes.Equal(b, data) || a.Size != uint64(len(data)) {
				t.Fatalf("%d of %d bytes, %v", len(b), a.Size, err)
			}
			must(k.close(node, fh, unix.O_RDONLY))
		}
		node, _, err := k.lookup(fuse.FUSE_ROOT_ID, "11")
		must(err)
		fh, err := k.open(node, unix.O_RDWR)
		must(err)
		// After the replay there is the room of the old journal.
		if err := errors.Join(k.write(node, fh, data[:page], 0), k.fsync(node, fh, false)); i == 0 && !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("a write that needs the journal, without room for one: %v", err)
		}
		for i := range 11 {
			must(k.unlink(fuse.FUSE_ROOT_ID, fmt.Sprint(i)))
			k.forget(nodes[i])
		}
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if err = k.fsync(node, fh, false); err == nil || time.Now().After(end) {
				break
			}
		}
		must(err)
		must(k.truncate(node, 0))
		must(k.close(node, fh, unix.O_RDWR))
		must(s.Close())
	}
}
