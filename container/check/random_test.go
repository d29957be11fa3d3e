package check

import (
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// newMemoryRig makes a full vault on a disk in memory, all of it stable.
func newMemoryRig(t testing.TB) (*rig, *disktest.Memory) {
	t.Helper()
	m := disktest.NewMemory()
	r := newRigOn(t, "", func() disk.Dir { return m.Root() })
	r.fill()
	r.open(false)
	r.put("twin", pattern(9, 30000))
	e, err := r.tree.Root().Lookup("twin")
	r.must(err)
	_, err = r.dir("again", true).Link("twin", r.tree.Root(), "twin", e.ID, true)
	r.must(err)
	r.close()
	return r, m
}

// hostObject is one of the host below the vault.
type hostObject struct {
	dir  string // path of its directory
	name string
	mode uint32
	size int64
}

// hostObjects lists everything below the vault but .coffer.
func hostObjects(r *rig, root disk.Dir, path string) (all []hostObject) {
	d, err := openBelow(root, path)
	r.must(err)
	defer d.Close()
	r.must(d.List(func(name string, _ uint64, _ uint8) error {
		if name == configDir {
			return nil
		}
		var st unix.Stat_t
		r.must(d.Stat(name, &st))
		all = append(all, hostObject{path, name, st.Mode & unix.S_IFMT, st.Size})
		return nil
	}))
	for _, o := range all {
		if o.mode == unix.S_IFDIR {
			all = append(all, hostObjects(r, root, below(path, o.name))...)
		}
	}
	return all
}

// harm does one bad thing to the host, and says which.
func (r *rig) harm(rng *mrand.Rand) string {
	r.t.Helper()
	root := r.root()
	defer root.Close()
	all := hostObjects(r, root, "")
	o := all[rng.IntN(len(all))]
	d, err := openBelow(root, o.dir)
	r.must(err)
	defer d.Close()
	other := all[rng.IntN(len(all))]
	to, err := openBelow(root, other.dir)
	r.must(err)
	defer to.Close()
	what := rng.IntN(12)
	if o.mode != unix.S_IFREG && what < 8 {
		what = 8 + rng.IntN(4)
	}
	switch what {
	case 8:
		return fmt.Sprintf("moved %s/%s to %q: %v", o.dir, o.name, other.dir, d.Rename(o.name, to, o.name, unix.RENAME_NOREPLACE))
	case 9:
		b := []byte(o.name)
		at := rng.IntN(len(b))
		b[at] = "AB"[rng.IntN(2)]
		return fmt.Sprintf("renamed %s/%s at letter %d: %v", o.dir, o.name, at, d.Rename(o.name, d, string(b), unix.RENAME_NOREPLACE))
	case 10:
		if other.mode != o.mode || strings.HasPrefix(other.dir, below(o.dir, o.name)) || strings.HasPrefix(o.dir, below(other.dir, other.name)) {
			return "nothing"
		}
		return fmt.Sprintf("swapped %s/%s and %s/%s: %v", o.dir, o.name, other.dir, other.name, d.Rename(o.name, to, other.name, unix.RENAME_EXCHANGE))
	case 11:
		if o.mode == unix.S_IFDIR {
			return "nothing"
		}
		return fmt.Sprintf("removed %s/%s: %v", o.dir, o.name, d.Unlink(o.name))
	}
	f, err := d.Open(o.name, false)
	r.must(err)
	defer f.Close()
	b := make([]byte, o.size)
	if _, err := f.ReadAt(b, 0); err != nil || o.size == 0 {
		return "nothing"
	}
	at := rng.IntN(len(b))
	if rng.IntN(2) == 0 {
		at = rng.IntN(min(len(b), 3*4096))
	}
	n := min(len(b)-at, 1+rng.IntN(6000))
	switch what {
	case 0, 1, 2:
		n = 1
		b[at] ^= 1 << rng.IntN(8)
	case 3:
		at &^= 4095
		n = min(len(b)-at, 4096*(1+rng.IntN(3)))
		clear(b[at : at+n])
	case 4:
		r.must(f.Truncate(int64(at)))
		return fmt.Sprintf("cut %s/%s to %d", o.dir, o.name, at)
	case 5:
		r.must(f.Truncate(o.size + int64(n)))
		return fmt.Sprintf("extended %s/%s by %d", o.dir, o.name, n)
	case 6:
		for i := range n {
			b[at+i] = byte(rng.Uint32())
		}
	case 7: // a copy, as a tool makes that brings back what is gone
		name := o.name
		if o.dir == other.dir {
			name += []string{" (conflicted copy)", ".sync-conflict-1", "~"}[rng.IntN(3)]
		}
		c, err := to.Create(name, 0o600)
		if err != nil {
			return "nothing"
		}
		defer c.Close()
		_, err = c.WriteAt(b, 0)
		return fmt.Sprintf("copied %s/%s to %s/%s: %v", o.dir, o.name, other.dir, name, err)
	}
	_, err = f.WriteAt(b[at:at+n], int64(at))
	return fmt.Sprintf("changed %d bytes at %d of %s/%s (%d): %v", n, at, o.dir, o.name, what, err)
}

// TestRepairNeverWorse damages vaults at random, and compares every byte that could be read before with what a repair leaves. What is
// left of the damage afterwards is only what the repair said.
func TestRepairNeverWorse(t *testing.T) {
	seed := uint64(os.Getpid())
	for round := range 60 {
		rng := mrand.New(mrand.NewPCG(seed, uint64(round)))
		r, _ := newMemoryRig(t)
		var log []string
		if round%3 == 0 {
			r.leaveUnclean()
			log = append(log, "an unclean session")
		}
		whole := r.contentNow()
		for range 1 + rng.IntN(6) {
			log = append(log, r.harm(rng))
		}
		before := r.contentNow()
		sum, kept, done := r.repair(false)
		after := r.contentNow()
		story := fmt.Sprintf("seed %d, round %d:\n%s\n%s", seed, round, strings.Join(log, "\n"), actions(done))
		for _, k := range worse(before, after) {
			// A mount shows zeros for what was never synced and does not open by its pins, and an empty file where the header does not; a repair may find
			// what it was.
			if before[k] == "0" && whole[k] != "0" {
				continue
			}
			if strings.Trim(before[k], "\x00") != "" || after[k] != whole[k] {
				t.Fatalf("%s\nworse than before: %q", story, k)
			}
		}
		left, again := r.verify()
		if kept == 0 && left.Damage > 0 {
			t.Fatalf("%s\nnothing is said to be left, and there is\n%s", story, lines(again))
		}
		if sum.Damage+sum.Leftover == 0 && len(done) > 0 {
			t.Errorf("%s\nnothing found, and something was done", story)
		}
		_, _, second := r.repair(false)
		for _, a := range second {
			if a.Result != Kept && a.Result != Copied {
				t.Errorf("%s\na second run does %+v", story, a)
			}
		}
	}
}

// leaveUnclean opens the vault, makes a file, one without a header and one that is too long, and crashes.
func (r *rig) leaveUnclean() {
	r.t.Helper()
	r.open(false)
	r.put("late", pattern(20, 20000))
	h, _, err := r.tree.Root().CreateFile("headless", 0o600, -1, -1)
	r.must(err)
	r.must(h.Close())
	r.putUnsynced("longer", pattern(21, 20000))
	e, err := r.tree.Root().Lookup("longer")
	r.must(err)
	h, err = r.tree.Root().Open("longer", e.ID, false)
	r.must(err)
	r.must(h.Truncate(100_000))
	r.must(h.Close())
	r.crash()
}

// TestRepairInterrupted cuts the power at points of a repair: whatever could be read before can be read after the cut, and once the repair was run again
// all that it can save is there.
func TestRepairInterrupted(t *testing.T) {
	seed := uint64(os.Getpid())
	rng := mrand.New(mrand.NewPCG(seed, 7))
	r, m := newMemoryRig(t)
	for len(r.findDamage()) < 3 {
		t.Log(r.harm(rng))
	}
	before := r.contentNow()
	base := m.Cut(disktest.LoseNothing, rng)
	use := func(x *disktest.Memory) { r.root = func() disk.Dir { return x.Root() } }

	full := base.Cut(disktest.LoseNothing, rng)
	use(full)
	full.Record()
	_, _, done := r.repair(false)
	t.Logf("%d operations:\n%s", full.Ops(), actions(done))
	want := r.contentNow()
	if bad := worse(before, want); len(bad) > 0 {
		t.Fatalf("seed %d: worse than before: %q", seed, bad)
	}
	step := max(1, full.Ops()/60)
	for k := 0; k < full.Ops(); k += 1 + rng.IntN(step) {
		for _, loss := range []disktest.Loss{disktest.PowerCuts()[rng.IntN(len(disktest.PowerCuts()))], disktest.Killed} {
			where := fmt.Sprintf("seed %d, operation %d of %d, %v", seed, k, full.Ops(), loss)
			use(full.CutAt(k, loss, rng))
			if bad := worse(before, r.contentNow()); len(bad) > 0 {
				t.Fatalf("%s: worse than before: %q", where, bad)
			}
			r.repair(false)
			after := r.contentNow()
			if bad := worse(before, after); len(bad) > 0 {
				t.Fatalf("%s: worse than before after the second run: %q", where, bad)
			}
			if bad := worse(want, after); len(bad) > 0 {
				t.Fatalf("%s: the second run does not save %q", where, bad)
			}
		}
	}
}

func (r *rig) findDamage() (all []Finding) {
	_, found := r.verify()
	for _, f := range found {
		if f.Kind == Damage {
			all = append(all, f)
		}
	}
	return all
}

// TestRepairFails leaves everything as it was where the host refuses a call.
func TestRepairFails(t *testing.T) {
	r, m := newMemoryRig(t)
	rng := mrand.New(mrand.NewPCG(uint64(os.Getpid()), 8))
	for len(r.findDamage()) < 2 {
		t.Log(r.harm(rng))
	}
	before := r.contentNow()
	base := m.Cut(disktest.LoseNothing, rng)
	for n := 0; ; n += 1 + rng.IntN(20) {
		x := base.Cut(disktest.LoseNothing, rng)
		r.root = func() disk.Dir { return x.Root() }
		r.open(false)
		x.SetFault(disktest.FailCall(n, unix.EIO))
		_, _, _, err := r.repairOpen(false)
		err = errors.Join(err, r.tree.Close(), r.eng.Close(true))
		if err == nil {
			err = r.v.Close()
		} else {
			err = errors.Join(err, r.v.CloseUnclean())
		}
		struck := x.Struck()
		x.SetFault(nil)
		x = x.Cut(disktest.LoseNothing, rng)
		if bad := worse(before, r.contentNow()); len(bad) > 0 {
			t.Fatalf("call %d failed (%v): worse than before: %q", n, err, bad)
		}
		if !struck {
			return
		}
	}
}
