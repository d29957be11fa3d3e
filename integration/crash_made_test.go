package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// madeRun makes new files that the journal alone makes durable (FORMAT.md section 12, C8), and looks at what any loss leaves of them.
type madeRun struct {
	t     *testing.T
	m     *disktest.Memory
	mk    *keys.MasterKey
	s     *crashStack
	k     *kernel
	other uint64 // an old file, to sync what else there is
	ofh   uint64
}

const madeRoot = fuse.FUSE_ROOT_ID

// newMadeRun mounts a new vault on a disk in memory, but for the kernel.
func newMadeRun(t *testing.T) *madeRun {
	t.Helper()
	base := newCrashBase(t, vault.Params{})
	s, err := openCrash(base.disk.Root(), base.key, true)
	if err != nil {
		t.Fatal(err)
	}
	r := &madeRun{t: t, m: base.disk, mk: base.key, s: s, k: newKernel(s.FS)}
	t.Cleanup(func() { r.s.abandon(r.m) })
	return r
}

func (r *madeRun) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// make makes a file of so many pages, and syncs it.
func (r *madeRun) make(dir uint64, name string, stamp uint64, pages int) (node, fh uint64) {
	r.t.Helper()
	node, _, fh, err := r.k.create(dir, name)
	r.must(err)
	r.must(r.k.write(node, fh, bytes.Repeat(stampedPage(stamp), pages), 0))
	r.must(r.k.fsync(node, fh, true))
	return node, fh
}

// old makes a file that is durable on the host.
func (r *madeRun) old(name string, stamp uint64) {
	r.t.Helper()
	node, fh := r.make(madeRoot, name, stamp, 1)
	r.must(r.k.close(node, fh, unix.O_RDWR))
	r.must(r.s.Engine.Checkpoint())
	r.must(r.s.Engine.Checkpoint())
	r.sync()
}

// sync has the journal be durable, and says nothing of names.
func (r *madeRun) sync() {
	r.t.Helper()
	r.must(r.k.write(r.other, r.ofh, stampedPage(9), 0))
	r.must(r.k.fsync(r.other, r.ofh, true))
}

func (r *madeRun) unlink(name string) { r.t.Helper(); r.must(r.k.unlink(madeRoot, name)) }
func (r *madeRun) rename(from, to string) {
	r.t.Helper()
	r.must(r.k.rename(madeRoot, from, madeRoot, to, 0))
}
func (r *madeRun) fsyncDir() { r.t.Helper(); r.must(r.k.fsyncDir(madeRoot)) }

// holds answers which stamp a file of so many pages has, 0 where it is not there.
func (r *madeRun) holds(dir uint64, name string, pages int) (uint64, error) {
	node, a, err := r.k.lookup(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil || a.Size != uint64(pages*page) {
		return 0, fmt.Errorf("%q has %d bytes, %w", name, a.Size, err)
	}
	fh, err := r.k.open(node, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	b, err := r.k.read(node, fh, 0, pages*page)
	err = errors.Join(err, r.k.close(node, fh, unix.O_RDONLY))
	for stamp := range uint64(20) {
		if bytes.Equal(b, bytes.Repeat(stampedPage(stamp), pages)) {
			return stamp, err
		}
	}
	return 0, errors.Join(err, fmt.Errorf("%q holds something else", name))
}

// is reports what differs from a file with that stamp; 0: none.
func (r *madeRun) is(name string, stamps ...uint64) error {
	got, err := r.holds(madeRoot, name, 1)
	for _, s := range stamps {
		if err == nil && got == s {
			return nil
		}
	}
	return errors.Join(err, fmt.Errorf("%q holds %d, not one of %d", name, got, stamps))
}

// listed compares what a list of the root has with what lookups find.
func (r *madeRun) listed() error {
	names, err := r.k.list(madeRoot)
	for _, name := range []string{"f", "g", "new", "old"} {
		_, _, lerr := r.k.lookup(madeRoot, name)
		if slices.Contains(names, name) != (lerr == nil) {
			err = errors.Join(err, fmt.Errorf("%q: %v, and the list is %q", name, lerr, names))
		}
	}
	return err
}

// A new small file that was synced, and what becomes of it, over every loss: what was acknowledged is so, and nothing is lost or comes back.
func TestCrashMade(t *testing.T) {
	for _, c := range []struct {
		name  string
		work  func(r *madeRun)
		judge func(r *madeRun) error
	}{
		{"synced", func(r *madeRun) { r.make(madeRoot, "f", 1, 1) }, func(r *madeRun) error {
			_, a, err := r.k.lookup(madeRoot, "f")
			if err == nil && a.Mode != unix.S_IFREG|0o644 {
				err = fmt.Errorf("mode %o", a.Mode)
			}
			return errors.Join(err, r.is("f", 1))
		}},
		{"in a new directory", func(r *madeRun) {
			dir, _, err := r.k.mkdir(madeRoot, "dir")
			r.must(err)
			r.make(dir, "f", 1, 1)
		}, func(r *madeRun) error {
			dir, _, err := r.k.lookup(madeRoot, "dir")
			if err != nil {
				return err
			}
			if got, err := r.holds(dir, "f", 1); err != nil || got != 1 {
				return fmt.Errorf("it holds %d, %w", got, err)
			}
			return nil
		}},
		{"in a directory that moved", func(r *madeRun) {
			dir, _, err := r.k.mkdir(madeRoot, "dir")
			r.must(err)
			r.fsyncDir()
			r.make(dir, "f", 1, 1)
			r.rename("dir", "moved")
			r.sync()
		}, func(r *madeRun) error {
			dir, _, err := r.k.lookup(madeRoot, "dir")
			if err != nil {
				dir, _, err = r.k.lookup(madeRoot, "moved")
			}
			if err != nil {
				return err
			}
			if got, err := r.holds(dir, "f", 1); err != nil || got != 1 {
				return fmt.Errorf("it holds %d, %w", got, err)
			}
			return nil
		}},
		{"removed", func(r *madeRun) {
			r.make(madeRoot, "f", 1, 1)
			r.unlink("f")
			r.fsyncDir()
		}, func(r *madeRun) error { return r.is("f", 0) }},
		{"removed before another sync", func(r *madeRun) { // as of the rollback journal of a database, and then of the database
			r.make(madeRoot, "f", 1, 1)
			r.must(r.k.fsyncDir(madeRoot))
			r.unlink("f")
			r.sync()
		}, func(r *madeRun) error { return r.is("f", 0) }},
		{"removed before a large new file", func(r *madeRun) {
			r.make(madeRoot, "f", 1, 1)
			r.unlink("f")
			r.make(madeRoot, "large", 2, 100)
		}, func(r *madeRun) error {
			if got, err := r.holds(madeRoot, "large", 100); err != nil || got != 2 {
				return fmt.Errorf("large holds %d, %w", got, err)
			}
			return r.is("f", 0)
		}},
		{"removed and made again", func(r *madeRun) {
			for i := range uint64(5) {
				r.make(madeRoot, "f", i+1, 1)
				r.fsyncDir()
				if i < 4 {
					r.unlink("f")
				}
			}
		}, func(r *madeRun) error { return r.is("f", 5) }},
		{"given up by the journal", func(r *madeRun) { r.old("f", 1) }, func(r *madeRun) error { return r.is("f", 1) }},
		{"under a name that another one had", func(r *madeRun) {
			r.old("f", 1)
			r.rename("f", "g")
			r.make(madeRoot, "f", 2, 1)
		}, func(r *madeRun) error { return errors.Join(r.is("f", 2), r.is("g", 1)) }},
		{"moved to a name that another one had", func(r *madeRun) {
			r.old("f", 1)
			r.make(madeRoot, "new", 2, 1)
			r.rename("f", "g")
			r.rename("new", "f")
			r.sync()
		}, func(r *madeRun) error {
			if r.is("f", 1) == nil {
				return errors.Join(r.is("g", 0), r.is("new", 2))
			}
			return errors.Join(r.is("g", 1), r.is("f", 0, 2))
		}},
		{"moved, then removed", func(r *madeRun) {
			r.make(madeRoot, "new", 1, 1)
			r.rename("new", "f")
			r.fsyncDir()
			r.unlink("f")
		}, func(r *madeRun) error { return errors.Join(r.is("new", 0), r.is("f", 0, 1)) }},
		{"moved to a new directory", func(r *madeRun) {
			r.make(madeRoot, "f", 1, 1)
			dir, _, err := r.k.mkdir(madeRoot, "dir")
			r.must(err)
			r.must(r.k.rename(madeRoot, "f", dir, "g", 0))
			r.sync()
		}, func(r *madeRun) error {
			if dir, _, err := r.k.lookup(madeRoot, "dir"); err == nil {
				if got, err := r.holds(dir, "g", 1); err != nil || got == 1 {
					return errors.Join(err, r.is("f", 0))
				}
			}
			return r.is("f", 1)
		}},
		{"moved over another one", func(r *madeRun) {
			r.old("f", 1)
			r.make(madeRoot, "new", 2, 1)
			r.rename("new", "f")
			r.sync()
		}, func(r *madeRun) error {
			if r.is("f", 2) == nil {
				return r.is("new", 0)
			}
			return errors.Join(r.is("f", 1), r.is("new", 2))
		}},
		{"replaced", func(r *madeRun) {
			r.make(madeRoot, "f", 1, 1)
			r.make(madeRoot, "new", 2, 1)
			r.rename("new", "f")
			r.sync()
			r.unlink("f")
		}, func(r *madeRun) error { return errors.Join(r.is("f", 0, 1, 2), r.is("new", 0, 2)) }},
		{"replaced by one that is removed, durably", func(r *madeRun) {
			r.make(madeRoot, "f", 1, 1)
			r.make(madeRoot, "new", 2, 1)
			r.rename("new", "f")
			r.unlink("f")
			r.fsyncDir()
		}, func(r *madeRun) error { return errors.Join(r.is("f", 0), r.is("new", 0)) }},
		{"replaced by an old one", func(r *madeRun) {
			r.old("old", 1)
			r.make(madeRoot, "f", 2, 1)
			r.rename("old", "f")
			r.sync()
		}, func(r *madeRun) error {
			if r.is("old", 1) == nil {
				return r.is("f", 2)
			}
			return errors.Join(r.is("old", 0), r.is("f", 1))
		}},
		{"two names, both removed", func(r *madeRun) {
			node, _ := r.make(madeRoot, "f", 1, 1)
			r.must(r.k.link(node, madeRoot, "g"))
			r.unlink("f")
			r.unlink("g")
			r.fsyncDir()
		}, func(r *madeRun) error { return errors.Join(r.is("f", 0), r.is("g", 0)) }},
		{"two names, one removed", func(r *madeRun) {
			node, _ := r.make(madeRoot, "f", 1, 1)
			r.must(r.k.link(node, madeRoot, "g"))
			r.fsyncDir()
			r.unlink("f")
			r.sync()
		}, func(r *madeRun) error { return errors.Join(r.is("f", 0, 1), r.is("g", 1)) }},
		{"grown", func(r *madeRun) {
			node, fh := r.make(madeRoot, "f", 1, 1)
			r.must(r.k.write(node, fh, bytes.Repeat(stampedPage(1), 79), page))
			r.must(r.k.fsync(node, fh, true))
		}, func(r *madeRun) error {
			if got, err := r.holds(madeRoot, "f", 80); err != nil || got != 1 {
				return fmt.Errorf("it holds %d, %w", got, err)
			}
			return nil
		}},
		{"another mode", func(r *madeRun) {
			node, fh := r.make(madeRoot, "f", 1, 1)
			r.must(r.k.chmod(node, 0o600))
			r.must(r.k.fsync(node, fh, false))
		}, func(r *madeRun) error {
			_, a, err := r.k.lookup(madeRoot, "f")
			if err == nil && a.Mode != unix.S_IFREG|0o600 {
				err = fmt.Errorf("mode %o", a.Mode)
			}
			return errors.Join(err, r.is("f", 1))
		}},
	} {
		t.Run(c.name, func(t *testing.T) { testCrashMade(t, c.work, c.judge) })
	}
}

// testCrashMade does work on a new vault, and judges what each loss leaves.
func testCrashMade(t *testing.T, work func(r *madeRun), judge func(r *madeRun) error) {
	r := newMadeRun(t)
	r.other, r.ofh = r.make(madeRoot, "other", 8, 1)
	r.must(r.s.Engine.Checkpoint())
	work(r)
	for _, loss := range crashLosses() {
		seeds := times(8, 40)
		if testing.Short() {
			seeds = 3
		}
		if !loss.Chance() {
			seeds = 1
		}
		for seed := range uint64(seeds) {
			after := &madeRun{t: t}
			d := r.m.Cut(loss, rand.New(rand.NewPCG(seed, 1)))
			for _, readOnly := range []bool{true, false} { // who only reads is shown the same
				s, err := openCrashAs(d.Root(), r.mk, true, readOnly)
				r.must(err)
				after.s = s
				after.k = newKernel(after.s.FS)
				if err := judge(after); err != nil {
					t.Errorf("%v, seed %d, read-only %v: %v\n%s", loss, seed, readOnly, err, after.s.notes.all())
				}
				if err := after.listed(); err != nil {
					t.Errorf("%v, seed %d, read-only %v: %v", loss, seed, readOnly, err)
				}
				r.must(after.s.Close())
			}
		}
	}
}

// A file that is made, synced with its directory, and removed, again and again, as a database does with its rollback journal, costs syncs of the journal only.
func TestMadeSyncs(t *testing.T) {
	r := newMadeRun(t)
	r.other, r.ofh = r.make(madeRoot, "other", 8, 1)
	node, fh := r.make(madeRoot, "before", 1, 1)
	r.must(r.k.close(node, fh, unix.O_RDWR))
	r.unlink("before")
	host, journal := 0, 0
	r.m.SetTrace(func(op, name string, _ int64, _ int) {
		switch {
		case !strings.Contains(op, "sync"):
		case strings.HasPrefix(name, "journal."):
			journal++
		default:
			t.Logf("%s of %q", op, name)
			host++
		}
	})
	for i := range uint64(20) {
		node, fh := r.make(madeRoot, "scratch", 1+i%8, 3)
		r.fsyncDir()
		r.must(r.k.write(node, fh, stampedPage(9), page))
		r.must(r.k.fsync(node, fh, true))
		r.sync()
		r.must(r.k.close(node, fh, unix.O_RDWR))
		r.unlink("scratch")
	}
	r.m.SetTrace(nil)
	// Of three fsyncs two go straight to the disk; the first one finds the removal before, which is not durable yet.
	if host > 0 || journal != 20 {
		t.Errorf("%d syncs of the host, %d of the journal", host, journal)
	}
}
