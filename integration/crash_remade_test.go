package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// failJournal has every call on the journal fail from now on.
func (r *madeRun) failJournal() {
	r.m.SetFault(func(c disktest.Call) error {
		if strings.HasPrefix(c.Name, "journal.") {
			return unix.EIO
		}
		return nil
	})
}

// What came after a file was made by the journal, over every loss.
func TestCrashMadeLater(t *testing.T) {
	for _, c := range []struct {
		name  string
		work  func(r *madeRun)
		judge func(r *madeRun) error
	}{
		// The journal has given the file up by then, and may not say so yet: nothing was appended since.
		{"given up by the journal, then removed", func(r *madeRun) {
			r.make(madeRoot, "f", 1, 1)
			r.must(r.s.Engine.Checkpoint())
			r.must(r.s.Engine.Checkpoint())
			r.unlink("f")
			r.fsyncDir()
		}, func(r *madeRun) error { return r.is("f", 0) }},
		{"given up by the journal, then replaced and removed", func(r *madeRun) {
			r.make(madeRoot, "f", 1, 1)
			r.must(r.s.Engine.Checkpoint())
			r.must(r.s.Engine.Checkpoint())
			r.old("g", 2)
			r.must(r.s.Engine.Checkpoint())
			r.rename("g", "f")
			r.unlink("f")
			r.fsyncDir()
		}, func(r *madeRun) error { return errors.Join(r.is("f", 0), r.is("g", 0)) }},
		{"given up by the journal, then under two names, both removed", func(r *madeRun) {
			node, _ := r.make(madeRoot, "f", 1, 1)
			r.must(r.s.Engine.Checkpoint())
			r.must(r.k.link(node, madeRoot, "g"))
			r.unlink("f")
			r.unlink("g")
			r.fsyncDir()
		}, func(r *madeRun) error { return errors.Join(r.is("f", 0), r.is("g", 0)) }},
		{"an attribute before the first sync", func(r *madeRun) {
			node, _, fh, err := r.k.create(madeRoot, "f")
			r.must(err)
			r.must(r.k.write(node, fh, stampedPage(1), 0))
			r.must(r.k.setXattr(node, "user.a", "b"))
			r.must(r.k.fsync(node, fh, false))
		}, func(r *madeRun) error { return r.hasXattr("f", "b") }},
		{"an attribute after the first sync", func(r *madeRun) {
			node, fh := r.make(madeRoot, "f", 1, 1)
			r.must(r.k.setXattr(node, "user.a", "b"))
			r.must(r.k.fsync(node, fh, false))
		}, func(r *madeRun) error { return r.hasXattr("f", "b") }},
		{"an attribute after the first sync, and another name", func(r *madeRun) {
			node, fh := r.make(madeRoot, "f", 1, 1)
			r.must(r.k.setXattr(node, "user.a", "b"))
			r.rename("f", "g")
			r.must(r.k.fsync(node, fh, false))
		}, func(r *madeRun) error { return errors.Join(r.hasXattr("g", "b"), r.is("f", 0)) }},
		{"a mtime", func(r *madeRun) {
			node, fh := r.make(madeRoot, "f", 1, 1)
			r.setMtime(node, 1000)
			r.must(r.k.fsync(node, fh, false))
		}, func(r *madeRun) error { return r.hasMtime("f", 1000) }},
		{"a mtime before the first sync", func(r *madeRun) {
			node, _, fh, err := r.k.create(madeRoot, "f")
			r.must(err)
			r.must(r.k.write(node, fh, stampedPage(1), 0))
			r.setMtime(node, 1000)
			r.must(r.k.fsync(node, fh, false))
		}, func(r *madeRun) error { return r.hasMtime("f", 1000) }},
		{"a mtime after the journal gave it up", func(r *madeRun) {
			node, fh := r.make(madeRoot, "f", 1, 1)
			r.must(r.k.close(node, fh, unix.O_RDWR))
			r.must(r.s.Engine.Checkpoint())
			r.must(r.s.Engine.Checkpoint())
			r.setMtime(node, 1000)
			fh, err := r.k.open(node, unix.O_RDWR)
			r.must(err)
			r.must(r.k.fsync(node, fh, false))
		}, func(r *madeRun) error { return r.hasMtime("f", 1000) }},
		{"shorter", func(r *madeRun) {
			node, fh := r.make(madeRoot, "f", 1, 8)
			r.must(r.k.truncate(node, page))
			r.must(r.k.fsync(node, fh, true))
		}, func(r *madeRun) error { return r.is("f", 1) }},
		{"in a directory that moved, and then away", func(r *madeRun) {
			dir, _, err := r.k.mkdir(madeRoot, "dir")
			r.must(err)
			r.make(dir, "f", 1, 1)
			r.rename("dir", "moved")
			r.must(r.k.rename(dir, "f", madeRoot, "g", 0))
			r.unlink("g")
			r.fsyncDir()
			r.must(r.k.fsyncDir(dir))
		}, func(r *madeRun) error {
			dir, _, err := r.k.lookup(madeRoot, "moved")
			if err != nil {
				return err
			}
			got, err := r.holds(dir, "f", 1)
			if got != 0 {
				err = errors.Join(err, errors.New("it came back"))
			}
			return errors.Join(err, r.is("g", 0))
		}},
		{"the directory was removed, too", func(r *madeRun) {
			dir, _, err := r.k.mkdir(madeRoot, "dir")
			r.must(err)
			r.make(dir, "f", 1, 1)
			r.must(r.k.unlink(dir, "f"))
			r.must(r.k.rmdir(madeRoot, "dir"))
			r.fsyncDir()
		}, func(r *madeRun) error { return r.is("dir", 0) }},
		{"on a host without room for a journal", func(r *madeRun) {
			r.s.abandon(r.m)
			r.m.SetFault(nil)
			var err error
			r.s, err = openCrash(r.m.Root(), r.mk, true)
			r.must(err)
			r.k = newKernel(r.s.FS)
			r.m.SetFault(func(c disktest.Call) error {
				if c.Op == "create" && strings.HasPrefix(c.Name, "journal.") {
					return unix.ENOSPC
				}
				return nil
			})
			r.make(madeRoot, "f", 1, 2) // the sync of the host does
			r.m.SetFault(nil)
		}, func(r *madeRun) error {
			if got, err := r.holds(madeRoot, "f", 2); err != nil || got != 1 {
				return fmt.Errorf("it holds %d, %w", got, err)
			}
			return nil
		}},
		{"removed, and moved, while the journal fails", func(r *madeRun) {
			r.make(madeRoot, "f", 1, 1)
			r.make(madeRoot, "g", 2, 1)
			r.failJournal()
			if r.k.unlink(madeRoot, "f") == nil || r.k.rename(madeRoot, "g", madeRoot, "h", 0) == nil {
				r.t.Error("the journal cannot say so, and nobody learns of it")
			}
			if r.k.fsyncDir(madeRoot) == nil {
				r.t.Error("names are promised that a replay undoes")
			}
		}, func(r *madeRun) error { return nil }},
		{"a large one, removed, and a small one under its name", func(r *madeRun) {
			r.make(madeRoot, "f", 1, 100)
			r.unlink("f")
			r.make(madeRoot, "f", 2, 1)
		}, func(r *madeRun) error { return r.is("f", 2) }},
		{"a large one, moved, and a small one under its name", func(r *madeRun) {
			node, fh := r.make(madeRoot, "f", 1, 100)
			r.rename("f", "g")
			r.must(r.k.fsync(node, fh, true))
			r.make(madeRoot, "f", 2, 1)
			r.unlink("g")
			r.make(madeRoot, "g", 3, 1)
		}, func(r *madeRun) error { return errors.Join(r.is("f", 2), r.is("g", 3)) }},
		{"closed, forgotten, and synced again", func(r *madeRun) {
			node, fh := r.make(madeRoot, "f", 1, 1)
			r.must(r.k.close(node, fh, unix.O_RDWR))
			r.k.forget(node)
			node, _, err := r.k.lookup(madeRoot, "f")
			r.must(err)
			fh, err = r.k.open(node, unix.O_RDWR)
			r.must(err)
			r.must(r.k.write(node, fh, stampedPage(2), 0))
			r.must(r.k.fsync(node, fh, true))
		}, func(r *madeRun) error { return r.is("f", 2) }},
	} {
		t.Run(c.name, func(t *testing.T) { testCrashMade(t, c.work, c.judge) })
	}
}

func (r *madeRun) setMtime(node, sec uint64) {
	r.t.Helper()
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: r.k.header(node), Valid: fuse.FATTR_MTIME, Mtime: sec}}
	r.must(statusError(r.k.fs.SetAttr(nil, &in, &fuse.AttrOut{})))
}

func (r *madeRun) hasMtime(name string, sec uint64) error {
	_, a, err := r.k.lookup(madeRoot, name)
	if err == nil && a.Mtime != sec {
		err = fmt.Errorf("mtime %d", a.Mtime)
	}
	return errors.Join(err, r.is(name, 1))
}

func (r *madeRun) hasXattr(name, value string) error {
	node, _, err := r.k.lookup(madeRoot, name)
	if err != nil {
		return err
	}
	if got, err := r.k.xattr(node, "user.a"); err != nil || got != value {
		return fmt.Errorf("attribute %q, %w", got, err)
	}
	return r.is(name, 1)
}

// The replay that makes a file is cut as well, at every operation of it, by the death of the process or the loss of power.
func TestCrashMadeTwice(t *testing.T) {
	r := newMadeRun(t)
	r.other, r.ofh = r.make(madeRoot, "other", 8, 1)
	r.make(madeRoot, "gone", 7, 1)
	r.unlink("gone")
	out := fuse.CreateOut{}
	h := r.k.header(madeRoot)
	owner := fuse.Owner{Uid: 1234, Gid: 5678}
	if os.Geteuid() != 0 { // then everything belongs to who serves it
		owner = *fuse.CurrentOwner()
	}
	h.Owner = owner
	s := r.k.fs.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0o4777}, "f", &out)
	node, _, err := r.k.entered(s, &out.EntryOut)
	r.must(err)
	r.must(r.k.write(node, out.Fh, stampedPage(1), 0))
	r.must(r.k.fsync(node, out.Fh, false))
	for _, first := range []disktest.Loss{disktest.LoseAll, disktest.Killed} {
		d := r.m.Cut(first, rand.New(rand.NewPCG(1, 1)))
		d.Record()
		again, err := openCrash(d.Root(), r.mk, true)
		r.must(err)
		ops := d.Ops()
		for at := range ops + 1 {
			for _, second := range crashLosses() {
				e := d.CutAt(at, second, rand.New(rand.NewPCG(uint64(at), 2)))
				after := &madeRun{t: t}
				after.s, err = openCrash(e.Root(), r.mk, true)
				r.must(err)
				after.k = newKernel(after.s.FS)
				_, a, err := after.k.lookup(madeRoot, "f")
				if err == nil && (a.Mode != unix.S_IFREG|0o4777 || a.Owner != owner) {
					err = fmt.Errorf("mode %o, owner %d, group %d", a.Mode, a.Uid, a.Gid)
				}
				if err = errors.Join(err, after.is("f", 1), after.is("gone", 0)); err != nil {
					t.Errorf("%v, then %v at %d of %d: %v\n%s", first, second, at, ops, err, strings.Join(after.s.notes.all(), "\n"))
				}
				r.must(after.s.Close())
			}
		}
		again.abandon(d)
	}
}

// A directory that the host cannot read keeps nobody from reading the rest of a vault whose journal has a file in it.
func TestCrashMadeUnreadable(t *testing.T) {
	r := newMadeRun(t)
	dir, _, err := r.k.mkdir(madeRoot, "dir")
	r.must(err)
	r.make(dir, "in", 1, 1)
	r.make(madeRoot, "f", 2, 1)
	d := r.m.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
	root := d.Root()
	var host string
	r.must(root.List(func(name string, _ uint64, typ uint8) error {
		if typ == unix.DT_DIR && name != ".coffer" {
			host = name
		}
		return nil
	}))
	r.must(root.Close())
	for _, op := range []string{"list", "open"} {
		d.SetFault(func(c disktest.Call) error {
			if c.Name == host && strings.HasPrefix(c.Op, op) {
				return unix.EIO
			}
			return nil
		})
		after := &madeRun{t: t}
		after.s, err = openCrashAs(d.Root(), r.mk, true, true)
		if err != nil {
			t.Fatalf("%s fails: %v", op, err)
		}
		after.k = newKernel(after.s.FS)
		r.must(after.is("f", 2))
		r.must(after.s.Close())
	}
}
