package check

import (
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// TestRepairHalfSynced takes objects at random from two copies of a vault, an older one and a newer one, as a tool leaves that was stopped while it synchronized.
func TestRepairHalfSynced(t *testing.T) {
	seed, rounds := rounds(t, 12)
	for round := range rounds {
		rng := mrand.New(mrand.NewPCG(seed, uint64(round)))
		r, m := newMemoryRig(t)
		old := m.Cut(disktest.LoseNothing, rng)
		r.open(false)
		for range 1 + rng.IntN(8) {
			r.edit(rng)
		}
		r.close()
		story := fmt.Sprintf("seed %d, round %d: clean", seed, round)
		if rng.IntN(3) == 0 {
			_, how := r.leaveUnclean(m, rng)
			story = fmt.Sprintf("seed %d, round %d: %s", seed, round, how)
		}
		r.halfSynced(rng, old)
		for rng.IntN(3) == 0 {
			story += "\n" + r.harm(rng)
		}
		r.judge(story, nil)
	}
}

// halfSynced goes on with a copy that has objects of the vault and of the older one.
func (r *rig) halfSynced(rng *mrand.Rand, old *disktest.Memory) *disktest.Memory {
	r.t.Helper()
	mixed := disktest.NewMemory()
	to, newer, older := mixed.Root(), r.root(), old.Root()
	r.must(to.Mkdir(configDir, 0o700))
	r.mix(rng, to, newer, older)
	r.must(to.SyncAll())
	for _, d := range []disk.Dir{to, newer, older} {
		d.Close()
	}
	r.root = func() disk.Dir { return mixed.Root() }
	return mixed
}

// mix copies objects of the newer and then of the older vault, some of each; the config is there in any case.
func (r *rig) mix(rng *mrand.Rand, to, newer, older disk.Dir) {
	r.t.Helper()
	for _, from := range []disk.Dir{newer, older} {
		share := 1 + rng.IntN(9)
		pick := func(path string) bool { return path == configDir || rng.IntN(10) < share }
		r.must(from.List(func(name string, _ uint64, _ uint8) error {
			if !pick(name) {
				return nil
			}
			below := func(path string) bool { return pick(path) }
			if err := copyObject(from, name, to, name, below); !onlyExists(err) {
				return err
			}
			return nil
		}))
	}
	for _, name := range []string{"config", "config.bak"} {
		if err := copyObject(r.hostDirAt(newer, configDir), name, r.hostDirAt(to, configDir), name, nil); !onlyExists(err) {
			r.t.Fatal(err)
		}
	}
}

// onlyExists reports whether nothing but EEXIST is joined in err.
func onlyExists(err error) bool {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range all.Unwrap() {
			if !onlyExists(e) {
				return false
			}
		}
		return true
	}
	return err == nil || errors.Is(err, unix.EEXIST)
}

// has reports whether there is an object of that path.
func (r *rig) has(path string) bool {
	d := r.tree.Root()
	for name := range strings.SplitSeq(path, "/") {
		e, err := d.Lookup(name)
		if err != nil {
			return false
		}
		if e.Type == names.Dir {
			d, err = d.Child(name, e.ID)
			r.must(err)
		}
	}
	return true
}

// edit changes something in the vault, which is open.
func (r *rig) edit(rng *mrand.Rand) {
	r.t.Helper()
	files := []string{"empty", "hole", "inline", "single", "docs/tree", "docs/deep/" + long, "docs/sparse", "twin"}
	name := files[rng.IntN(len(files))]
	if !r.has(name) {
		return // renamed before
	}
	dirPath, base := split(name)
	dir := r.dir(dirPath, false)
	switch rng.IntN(6) {
	case 0:
		_, err := dir.Unlink(base)
		r.must(err)
	case 1:
		_, _, err := r.tree.Rename(dir, base, r.dir("moved", true), base, 0)
		r.must(err)
	case 2: // replaced, as editors do
		r.put(name+"~", pattern(rng.Uint64(), 1+rng.IntN(30000)))
		_, _, err := r.tree.Rename(dir, base+"~", dir, base, 0)
		r.must(err)
	case 3:
		r.put(fmt.Sprintf("new%d", rng.IntN(1<<20)), pattern(rng.Uint64(), rng.IntN(50000)))
	case 4:
		if r.has("docs") {
			_, _, err := r.tree.Rename(r.tree.Root(), "docs", r.dir("moved", true), "docs", 0)
			r.must(err)
		}
	case 5:
		if name != "empty" {
			f := r.openFile(name)
			r.overwrite(f, rng.Uint64(), rng)
			r.must(f.Close())
		}
	}
	r.must(r.eng.Checkpoint())
}
