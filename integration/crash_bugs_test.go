package integration

import (
	"math/rand/v2"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// plantedBug is one that the crash tests have to find.
type plantedBug struct {
	wrap func(disk.Dir) disk.Dir // of the disk below the stack; nil: none
	lazy bool                    // files are not closed, and the model thinks they are
}

// lies says which syncs a disk does not do, and says it did.
type lies struct{ data, names, all bool }

// lyingDir and lyingFile are a disk with lies.
type lyingDir struct {
	disk.Dir
	lies lies
}

type lyingFile struct{ disk.File }

func (d lyingDir) file(f disk.File, err error) (disk.File, error) {
	if err != nil || !d.lies.data {
		return f, err
	}
	return lyingFile{f}, nil
}

func (d lyingDir) Open(name string, a disk.Access) (disk.File, error) {
	return d.file(d.Dir.Open(name, a))
}

func (d lyingDir) OpenDirect(name string) (disk.Direct, error) {
	if d.lies.data {
		return nil, unix.EOPNOTSUPP
	}
	return d.Dir.OpenDirect(name)
}

func (d lyingDir) Create(name string, mode uint32) (disk.File, error) {
	return d.file(d.Dir.Create(name, mode))
}

func (d lyingDir) OpenDir(name string) (disk.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return lyingDir{sub, d.lies}, nil
}

func (d lyingDir) Link(name string, dst disk.Dir, dstName string) error {
	return d.Dir.Link(name, dst.(lyingDir).Dir, dstName)
}

func (d lyingDir) Rename(name string, dst disk.Dir, dstName string, flags uint) error {
	return d.Dir.Rename(name, dst.(lyingDir).Dir, dstName, flags)
}

func (d lyingDir) Sync() error {
	if d.lies.names {
		return nil
	}
	return d.Dir.Sync()
}

func (d lyingDir) SyncAll() error {
	if d.lies.all {
		return nil
	}
	return d.Dir.SyncAll()
}

func (lyingFile) Datasync() error { return nil }
func (lyingFile) Sync() error     { return nil }

// The crash tests find what they are for, also as lenient as they are without a journal.
func TestCrashFindsBugs(t *testing.T) {
	lying := func(l lies) plantedBug {
		return plantedBug{wrap: func(d disk.Dir) disk.Dir { return lyingDir{d, l} }}
	}
	base := newCrashBase(t, crashParams()[0])
	for _, c := range []struct {
		name string
		bug  plantedBug
		loss disktest.Loss
	}{
		{"fdatasync does nothing", lying(lies{data: true}), disktest.LoseAll},
		{"fsync of a directory does nothing", lying(lies{names: true}), disktest.LoseNames},
		{"unmount syncs nothing", lying(lies{all: true}), disktest.LoseAll},
		{"close hands nothing over", plantedBug{lazy: true}, disktest.Killed},
	} {
		t.Run(c.name, func(t *testing.T) {
			const runs = 300
			rep := newCrashReport()
			for seed := uint64(1); seed <= runs; seed++ {
				run := crashCase{seed: seed, steps: 60, lenient: true, losses: []disktest.Loss{c.loss}, cuts: 20, bug: c.bug}
				if err := run.run(base, rep); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if rep.bad[c.loss.String()] > 0 {
					t.Logf("found by run %d: %.300s", seed, rep.first[c.loss.String()])
					return
				}
			}
			t.Errorf("not found in %d runs, %d cuts", runs, rep.cuts[c.loss.String()])
		})
	}
}

// The check of the live vault wants what the last event left, also where nothing of it is on the disk yet, and no less.
func TestCrashLiveCheck(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	base := newCrashBase(t, crashParams()[0])
	rng := rand.New(rand.NewPCG(1, 1))
	m := base.disk.Cut(disktest.LoseNothing, rng)
	r, err := newCrashRun(m, base.key, rng, plantedBug{})
	must(err)
	defer func() { r.stack.abandon(m) }()
	a, b := r.root.slot("a"), r.root.slot("b")
	h, err := r.createAt(a, fuse.FUSE_ROOT_ID)
	must(err)
	r.event("link", func(ev int) {
		must(r.k.link(h.o.node, fuse.FUSE_ROOT_ID, b.name))
		r.put(ev, map[*slot]*object{b: h.o})
	})
	must(r.remount())
	must(r.remove(a, r.k.unlink)) // of the names the only one that is known: the file stays open from here on, and its size in memory
	node, err := r.node(h.o)
	must(err)
	ops := m.Ops()
	r.event("truncate", func(ev int) {
		must(r.k.truncate(node, 5000))
		h.o.become(ev, make([]byte, 5000), 0, 5000)
	})
	if m.Ops() != ops {
		t.Fatal("the truncate is on the disk at once")
	}
	must(r.check())
	r.event("truncate that does nothing", func(ev int) { h.o.become(ev, make([]byte, 6000), 5000, 1000) })
	if r.check() == nil {
		t.Error("a truncate that did nothing is not found")
	}
}
