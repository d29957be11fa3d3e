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

// A freeze or its end that fails at any host call leaves a vault in which what fsync acknowledges later is there after a power cut, or in which it acknowledges
// nothing any more. No file that is made then is damaged.
func TestCrashAfterFailedFreeze(t *testing.T) {
	for _, thaw := range []bool{false, true} {
		refused, acknowledged := 0, 0
		for n, failed := 0, true; failed; n++ {
			c := newCrashMount(t)
			node, fh := c.file(fuse.FUSE_ROOT_ID, "file", stampedPage(1))
			c.must(c.fsync(node, fh, true))

			z := fs.NewFreezer(c.Stack, fs.NewWatch(c.FS, nil), c.notes.event)
			do := func() error { return z.Freeze(time.Hour) }
			if thaw {
				c.must(do())
				do = z.Thaw
			}
			c.disk.SetFault(disktest.FailCall(n, unix.EIO))
			err := do()
			if failed = c.disk.Struck(); !failed {
				c.must(err)
			}
			c.disk.SetFault(nil)
			if err == nil && !thaw {
				c.must(z.Thaw())
			}

			goesOn := c.write(node, fh, stampedPage(2), 0) == nil && c.fsync(node, fh, true) == nil
			if goesOn {
				acknowledged++
			} else {
				refused++
			}
			if fresh, _, fh, err := c.create(fuse.FUSE_ROOT_ID, "fresh"); err == nil {
				_ = c.close(fresh, fh, unix.O_RDWR)
			}
			for _, loss := range append(crashLosses(), disktest.Killed) {
				after := c.cut(loss)
				if got, err := after.content("file"); err != nil || !bytes.Equal(got, stampedPage(2)) && (goesOn || !bytes.Equal(got, stampedPage(1))) {
					t.Errorf("thaw %v, call %d failed, %v: %d bytes, not what was acknowledged, %v", thaw, n, loss, len(got), err)
				}
				if _, _, err := after.lookup(fuse.FUSE_ROOT_ID, "fresh"); err == nil {
					if _, err := after.content("fresh"); err != nil {
						t.Errorf("thaw %v, call %d failed, %v: the file that was made then: %v", thaw, n, loss, err)
					}
				}
				after.unmount()
			}
			if err := c.Close(); (err == nil) != goesOn {
				t.Errorf("thaw %v, call %d failed: goes on %v, unmounted with %v", thaw, n, goesOn, err)
			}
			c.over = true
		}
		if refused == 0 || acknowledged == 0 {
			t.Errorf("thaw %v: %d refused, %d acknowledged", thaw, refused, acknowledged)
		}
	}
}
