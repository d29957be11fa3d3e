package integration

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A power cut or a death of the process anywhere in a rename that leaves a whiteout: where that shows, all of the file is under its new name, also one that was never
// synced. Else a file that was synced is where it was, and with it what the new name carried.
func TestCrashWhiteout(t *testing.T) {
	for _, synced := range []bool{true, false} {
		for _, over := range []bool{true, false} {
			testCrashWhiteout(t, synced, over)
		}
	}
}

func testCrashWhiteout(t *testing.T, synced, over bool) {
	c := newCrashMount(t)
	node, fh := c.file(fuse.FUSE_ROOT_ID, "old", stampedPage(1))
	if synced {
		c.must(c.fsync(node, fh, false))
	}
	if over {
		other, ofh := c.file(fuse.FUSE_ROOT_ID, "new", stampedPage(2))
		c.must(c.fsync(other, ofh, false))
	}
	c.disk.Record()
	c.must(c.rename(fuse.FUSE_ROOT_ID, "old", fuse.FUSE_ROOT_ID, "new", unix.RENAME_WHITEOUT))
	done := 0
	for ops := range c.disk.Ops() + 1 {
		for _, loss := range crashLosses() {
			after := mountCrash(t, c.disk.CutAt(ops, loss, rand.New(rand.NewPCG(1, 1))), c.key)
			holds := func(name string, stamp uint64) bool {
				if _, _, err := after.lookup(fuse.FUSE_ROOT_ID, name); err != nil {
					return false
				}
				got, err := after.content(name)
				return err == nil && bytes.Equal(got, stampedPage(stamp))
			}
			_, a, err := after.lookup(fuse.FUSE_ROOT_ID, "old")
			switch {
			case err == nil && a.Mode == unix.S_IFCHR:
				done++
				if !holds("new", 1) {
					t.Errorf("synced %v, over another %v, %v after %d operations: there is a whiteout, and the file is gone", synced, over, loss, ops)
				}
			case synced && !holds("old", 1), over && !holds("new", 2):
				t.Errorf("synced %v, over another %v, %v after %d operations: a file is not where it was", synced, over, loss, ops)
			}
			after.unmount()
		}
	}
	if done == 0 {
		t.Error("no cut left a whiteout")
	}
}
