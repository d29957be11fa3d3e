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

// A freeze or its end that fails at any host call leaves a vault in which what fsync acknowledges later is there after a power cut, or in which it acknowledges
// nothing any more. No file that is made then is damaged.
func TestCrashAfterFailedFreeze(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, thaw := range []bool{false, true} {
		refused, acknowledged := 0, 0
		for n, failed := 0, true; failed; n++ {
			m, mk, err := newCrashDisk(vault.Params{})
			must(err)
			s, err := openCrash(m.Root(), mk, true)
			must(err)
			k := newKernel(s.FS)
			node, _, fh, err := k.create(fuse.FUSE_ROOT_ID, "file")
			must(err)
			must(k.write(node, fh, stampedPage(1), 0))
			must(k.fsync(node, fh, true))

			z := fs.NewFreezer(s.Stack, fs.NewWatch(s.FS, nil), s.notes.event)
			if thaw {
				must(z.Freeze(time.Minute))
			}
			m.SetFault(disktest.FailCall(n, unix.EIO))
			if thaw {
				err = z.Thaw()
			} else {
				err = z.Freeze(time.Minute)
			}
			if failed = m.Struck(); !failed {
				must(err)
			}
			m.SetFault(nil)
			if err == nil && !thaw {
				must(z.Thaw())
			}

			want := stampedPage(1)
			goesOn := k.write(node, fh, stampedPage(2), 0) == nil && k.fsync(node, fh, true) == nil
			if goesOn {
				want = stampedPage(2)
				acknowledged++
			} else {
				refused++
			}
			var fresh uint64
			if fresh, _, fh, err = k.create(fuse.FUSE_ROOT_ID, "fresh"); err == nil {
				_ = k.close(fresh, fh, unix.O_RDWR)
			}
			for _, loss := range append(crashLosses(), disktest.Killed) {
				c := m.Cut(loss, rand.New(rand.NewPCG(1, 1)))
				after, err := openCrash(c.Root(), mk, true)
				must(err)
				k := newKernel(after.FS)
				node, a, err := k.lookup(fuse.FUSE_ROOT_ID, "file")
				must(err)
				fh, err := k.open(node, unix.O_RDONLY)
				must(err)
				got, err := k.read(node, fh, 0, int(a.Size))
				if err != nil || !bytes.Equal(got, want) && (!bytes.Equal(got, stampedPage(2))) {
					t.Errorf("thaw %v, call %d failed, %v: %d bytes, not what was acknowledged, %v", thaw, n, loss, len(got), err)
				}
				must(k.close(node, fh, unix.O_RDONLY))
				if node, _, err := k.lookup(fuse.FUSE_ROOT_ID, "fresh"); err == nil {
					fh, err := k.open(node, unix.O_RDONLY)
					if err != nil {
						t.Errorf("thaw %v, call %d failed, %v: the file that was made then: %v", thaw, n, loss, err)
						continue
					}
					must(k.close(node, fh, unix.O_RDONLY))
				}
				must(after.Close())
			}
			if err := s.Close(); (err == nil) != goesOn {
				t.Errorf("thaw %v, call %d failed: goes on %v, unmounted with %v", thaw, n, goesOn, err)
			}
			mk.Destroy()
		}
		if refused == 0 || acknowledged == 0 {
			t.Errorf("thaw %v: %d refused, %d acknowledged", thaw, refused, acknowledged)
		}
	}
}
