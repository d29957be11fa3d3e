package check

import (
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/vault"
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
	r.longLink("longlink")
	r.annotate("single")
	r.annotate("docs/tree")
	r.annotate("docs")
	e, err := r.tree.Root().Lookup("twin")
	r.must(err)
	_, err = r.dir("again", true).Link("twin", r.tree.Root(), "twin", e.ID, true)
	r.must(err)
	r.close()
	return r, m
}

// TestRepairNeverWorse damages vaults at random, and compares every byte that could be read before with what a repair leaves. What is
// left of the damage afterwards is only what the repair said.
func TestRepairNeverWorse(t *testing.T) {
	seed, rounds := rounds(t, 20)
	for round := range rounds {
		rng := mrand.New(mrand.NewPCG(seed, uint64(round)))
		r, m := newMemoryRig(t)
		var log []string
		if round%2 == 0 {
			_, how := r.leaveUnclean(m, rng)
			log = append(log, "an unclean session: "+how)
		}
		whole := r.contentNow()
		for range 1 + rng.IntN(6) {
			if rng.IntN(5) == 0 {
				log = append(log, r.harmCoffer(rng))
			} else {
				log = append(log, r.harm(rng))
			}
		}
		r.judge(fmt.Sprintf("seed %d, round %d:\n%s", seed, round, strings.Join(log, "\n")), whole)
	}
}

// rounds says how long a test goes on: COFFER_LONG=1 takes that many times more. COFFER_SEED repeats a run.
func rounds(t *testing.T, n int) (seed uint64, count int) {
	t.Helper()
	seed = uint64(os.Getpid())
	if s := os.Getenv("COFFER_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv("COFFER_LONG") == "1" {
		n *= 50
	}
	return seed, n
}

// judge holds a damaged vault against all that verify and repair promise. whole is what it held before the damage; nil: nobody knows.
func (r *rig) judge(story string, whole map[string]string) {
	t := r.t
	t.Helper()
	type frame struct {
		path string
		off  int64
	}
	err := r.tryOpen(true)
	if errors.Is(err, vault.ErrState) { // with the state went every name in the root: nothing says that config and tree belong together
		return
	}
	r.must(err)
	r.close()
	var unread []frame
	r.unread = func(path string, off int64) { unread = append(unread, frame{path, off}) }
	before := r.contentNow()
	r.unread = nil
	_, found := r.verify()
	story += "\n" + lines(found)
	for _, u := range unread {
		if !slices.ContainsFunc(found, func(f Finding) bool { return f.names(u.path, u.off) }) {
			t.Fatalf("%s\nnobody names %s at %d, which cannot be read", story, u.path, u.off)
		}
	}
	host := r.dump()
	_, _, dry := r.repair(true)
	if r.dump() != host {
		t.Fatalf("%s\na dry run changed the host", story)
	}
	sum, kept, done := r.repair(false)
	story += "\n" + actions(done)
	if len(dry) == 0 && len(done) > 0 && sum.Damage == 0 {
		t.Errorf("%s\na dry run said nothing of that", story)
	}
	r.strict = true // as a mount
	r.open(false)
	r.close()
	after := r.contentNow()
	r.strict = false
	elsewhere := missing(before, after, "")
	for _, k := range worse(before, after) {
		path := k
		if i := strings.LastIndexAny(k, ":#@"); i >= 0 {
			path = k[:i]
		}
		// A mount shows zeros for what was never synced and does not open by its pins, and an empty file where the header does not; a repair may find
		// what it was. A journal shows over both of two files of one id, and belongs to one; two directories of one id become one.
		if before[k] == "0" && slices.ContainsFunc(found, func(f Finding) bool { return alias(f.Path) == alias(path) }) || !slices.Contains(elsewhere, k) && doubled(found, path) {
			continue
		}
		if strings.Trim(before[k], "\x00") != "" || whole != nil && after[k] != whole[k] {
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

// alias makes one of the names of what is linked twice.
func alias(path string) string { return strings.TrimPrefix(path, "again/") }

// doubled reports whether one of two objects of one id is at path, or above.
func doubled(found []Finding, path string) bool {
	return slices.ContainsFunc(found, func(f Finding) bool {
		_, other, ok := strings.Cut(f.What, "under the id of \"")
		other, _, _ = strings.Cut(other, "\"")
		return ok && (strings.HasPrefix(path+"/", other+"/") || strings.HasPrefix(path+"/", f.Path+"/"))
	})
}

// names reports whether a finding says that a byte cannot be read, or may not.
func (f *Finding) names(path string, off int64) bool {
	if f.Hidden || f.Kind != Damage && f.Kind != Leftover {
		return false
	}
	if doubled([]Finding{*f}, path) { // a mount refuses this one or the other
		return true
	}
	return strings.HasPrefix(alias(path)+"/", alias(f.Path)+"/") && (f.Bytes == nil || f.Bytes.From <= off && off < f.Bytes.To)
}

// leaveUnclean opens the vault, which lies on m, makes a file, one without a header and one that is too long, writes over others, and is cut off.
func (r *rig) leaveUnclean(m *disktest.Memory, rng *mrand.Rand) (left *disktest.Memory, how string) {
	r.t.Helper()
	r.open(false)
	r.put("late", pattern(20, 20000))
	h, _, err := r.tree.Root().CreateFile("headless", 0o600, -1, -1)
	r.must(err)
	r.must(h.Close())
	r.putUnsynced("longer", pattern(21, 20000))
	e, err := r.tree.Root().Lookup("longer")
	r.must(err)
	h, err = r.tree.Root().Open("longer", e.ID, disk.ReadWrite)
	r.must(err)
	r.must(h.Truncate(100_000))
	r.must(h.Close())
	open := map[string]*container.File{}
	for n := range rng.IntN(12) {
		if name := []string{"docs/tree", "single", "docs/sparse", "twin"}[rng.IntN(4)]; r.has(name) {
			if open[name] == nil {
				open[name] = r.openFile(name)
			}
			r.overwrite(open[name], uint64(30+n), rng)
		}
		if rng.IntN(3) == 0 {
			r.must(r.eng.Checkpoint())
		}
	}
	loss := append(disktest.PowerCuts(), disktest.Killed, disktest.Killed, disktest.Killed)[rng.IntN(10)]
	cut := m.Cut(loss, rng)
	for _, f := range open {
		r.must(f.Close())
	}
	r.crash()
	r.root = func() disk.Dir { return cut.Root() }
	return cut, loss.String()
}

func (r *rig) openFile(path string) *container.File {
	r.t.Helper()
	dir, name := split(path)
	d := r.dir(dir, false)
	e, err := d.Lookup(name)
	r.must(err)
	h, err := d.Open(e.Name, e.ID, disk.ReadWrite)
	r.must(err)
	f, err := r.eng.Open(h, e.ID, container.OpenOptions{})
	r.must(err)
	return f
}

// overwrite writes over a part of a file, through the journal, synced. It is not in its place at once.
func (r *rig) overwrite(f *container.File, seed uint64, rng *mrand.Rand) {
	r.t.Helper()
	g := f.Geometry()
	var ws []container.SegmentWrite
	for s := range uint64(f.Size()-1)/uint64(g.SegmentSize) + 1 {
		w := container.SegmentWrite{Segment: s, Frames: make([][]byte, g.Frames)}
		for i := range g.Frames {
			if at := int64(s)*int64(g.SegmentSize) + int64(i*g.FrameSize); at+int64(g.FrameSize) <= f.Size() && rng.IntN(6) == 0 {
				w.Frames[i], w.Dirty = pattern(seed, g.FrameSize), w.Dirty|1<<i
			}
		}
		if w.Dirty != 0 && len(ws) < 4 {
			ws = append(ws, w)
		}
	}
	if len(ws) > 0 {
		r.must(f.WriteFrames(f.Size(), ws))
	}
	r.must(f.Sync())
}

// TestRepairInterrupted cuts the power at points of a repair: whatever could be read before can be read after the cut, and once the repair was run again
// all that it can save is there.
func TestRepairInterrupted(t *testing.T) {
	seed, rounds := rounds(t, 1)
	for round := range rounds {
		rng := mrand.New(mrand.NewPCG(seed, uint64(round)))
		r, m := newMemoryRig(t)
		for n := 0; n < 20 && len(r.findDamage()) < 3; n++ {
			t.Log(r.harm(rng))
		}
		r.interrupt(m, rng, seed)

		r, m = newMemoryRig(t)
		m, loss := r.leaveUnclean(m, rng)
		t.Log(loss)
		for range 3 {
			t.Log(r.harmCoffer(rng))
		}
		r.interrupt(m, rng, seed)

		r, m = newMemoryRig(t)
		old := m.Cut(disktest.LoseNothing, rng)
		r.open(false)
		for range 8 {
			r.edit(rng)
		}
		r.close()
		r.interrupt(r.halfSynced(rng, old), rng, seed)
	}
}

// interrupt cuts the power at points of a repair of the vault, which lies on m.
func (r *rig) interrupt(m *disktest.Memory, rng *mrand.Rand, seed uint64) {
	t := r.t
	t.Helper()
	before := r.contentNow()
	base := m.Cut(disktest.LoseNothing, rng)
	use := func(x *disktest.Memory) { r.root = func() disk.Dir { return x.Root() } }

	full := base.Cut(disktest.LoseNothing, rng)
	use(full)
	full.Record()
	_, _, done := r.repair(false)
	t.Logf("%d operations:\n%s", full.Ops(), actions(done))
	want := r.contentNow()
	moves := "such a path is nowhere"
	if slices.ContainsFunc(done, func(a Action) bool { return strings.HasPrefix(a.What, "a second directory of one id") }) {
		moves = "" // all of it, to the other directory
	}
	if bad := missing(before, want, moves); len(bad) > 0 {
		t.Fatalf("seed %d: worse than before: %q", seed, bad)
	}
	points := 12
	if os.Getenv("COFFER_LONG") == "1" {
		points = 60
	}
	step := max(1, 2*full.Ops()/points)
	for k := 0; k < full.Ops(); k += 1 + rng.IntN(step) {
		for _, loss := range []disktest.Loss{disktest.PowerCuts()[rng.IntN(len(disktest.PowerCuts()))], disktest.Killed} {
			where := fmt.Sprintf("seed %d, operation %d of %d, %v", seed, k, full.Ops(), loss)
			use(full.CutAt(k, loss, rng))
			if bad := missing(before, r.contentNow(), moves); len(bad) > 0 {
				t.Fatalf("%s: worse than before: %q", where, bad)
			}
			r.repair(false)
			after := r.contentNow()
			if bad := missing(before, after, moves); len(bad) > 0 {
				t.Fatalf("%s: worse than before after the second run: %q", where, bad)
			}
			if bad := missing(want, after, min(moves, LostFound+"/")); len(bad) > 0 {
				t.Fatalf("%s: the second run does not save %q", where, bad)
			}
		}
	}
}

// missing says what of want is not in got; what lies below a directory may have another name now.
func missing(want, got map[string]string, dir string) (bad []string) {
	suffix := func(key string) string {
		if i := strings.LastIndexAny(key, ":#@/"); i >= 0 && key[i] != '/' {
			return key[i:]
		}
		return ""
	}
	saved := map[string]bool{}
	for k, v := range got {
		saved[suffix(k)+v] = true
	}
	for _, k := range worse(want, got) {
		if !strings.HasPrefix(k, dir) || !strings.HasSuffix(k, "/") && !saved[suffix(k)+want[k]] {
			bad = append(bad, k)
		}
	}
	return bad
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
	for n := 0; n < 20 && len(r.findDamage()) < 2; n++ {
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
