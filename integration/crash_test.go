package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// crashLosses are the power cuts and the death of the process.
func crashLosses() []disktest.Loss { return append(disktest.PowerCuts(), disktest.Killed) }

// verdict is what came of one crash.
type verdict struct {
	problems []string
	excused  int
	notes    []string
}

// aftermath opens the vault on a disk as a crash left it, and judges. When again is set the power goes once more, somewhere in what this did.
func (r *crashRun) aftermath(m *disktest.Memory, ops int, killed, lenient bool, rng *rand.Rand, again bool) (v verdict) {
	m.Record()
	s, err := openCrash(m.Root(), r.key, true)
	if err != nil {
		v.problems = []string{fmt.Sprintf("the vault does not open: %v", err)}
		return v
	}
	j := &judge{judged: r.at(ops, killed), k: newKernel(s.FS), lenient: lenient}
	j.k.remade = m.Remade()
	j.look()
	if again {
		loss := disktest.PowerCuts()[rng.IntN(len(disktest.PowerCuts()))]
		at := rng.IntN(m.Ops() + 1)
		w := r.aftermath(m.CutAt(at, loss, rng), ops, false, lenient, rng, false)
		for _, p := range w.problems {
			v.problems = append(v.problems, fmt.Sprintf("after a second cut (%v, at %d of %d): %s", loss, at, m.Ops(), p))
		}
		v.excused, v.notes = w.excused, w.notes
	}
	if rng.IntN(3) == 0 {
		j.use(rng)
	}
	j.clear()
	if len(j.problems) == 0 {
		if err := s.Close(); err != nil {
			j.wrong("unmount after the crash: %v", err)
		}
		_ = m.Root().List(func(name string, _ uint64, _ uint8) error {
			if name != ".coffer" && !strings.HasSuffix(name, ".name") { // a sidecar without its object is let lie
				j.wrong("rm -r left a host object of %d bytes name", len(name))
			}
			return nil
		})
	} else {
		s.abandon(m)
	}
	v.problems = append(v.problems, j.problems...)
	v.excused += j.excused
	v.notes = append(v.notes, s.notes.all()...)
	return v
}

// crashCase says how one run goes.
type crashCase struct {
	seed    uint64
	steps   int
	lenient bool
	losses  []disktest.Loss
	every   bool // every cut, each with one loss; else cuts at random
	cuts    int
	bug     plantedBug
}

// crashBase is a disk with an empty vault, for many runs.
type crashBase struct {
	disk *disktest.Memory
	key  *keys.MasterKey
}

func newCrashBase(t testing.TB, p vault.Params) crashBase {
	t.Helper()
	m, mk, err := newCrashDisk(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mk.Destroy)
	return crashBase{m, mk}
}

// crashReport counts what the cuts of some runs came to.
type crashReport struct {
	cuts, bad, excused map[string]int
	first              map[string]string // bad case per loss
}

func newCrashReport() *crashReport {
	return &crashReport{map[string]int{}, map[string]int{}, map[string]int{}, map[string]string{}}
}

// run makes one run and its cuts. An error says that the run itself failed.
func (c crashCase) run(base crashBase, rep *crashReport) error {
	rng := rand.New(rand.NewPCG(c.seed, 0))
	m := base.disk.Cut(disktest.LoseNothing, rng)
	r, err := newCrashRun(m, base.key, rng, c.bug)
	if err != nil {
		return err
	}
	defer func() { r.stack.abandon(m) }()
	for i := range c.steps {
		if err := r.step(); err != nil {
			return fmt.Errorf("step %d: %w; %s", i, err, strings.Join(r.stack.notes.all(), "; "))
		}
	}
	n := m.Ops()
	if err := r.check(); err != nil {
		return err
	}
	if !c.every {
		for range c.cuts {
			c.cut(r, rng.IntN(n+1), c.losses[rng.IntN(len(c.losses))], rng, rep)
		}
		return nil
	}
	for ops := range n + 1 {
		c.cut(r, ops, c.losses[(ops+int(c.seed))%len(c.losses)], rng, rep)
	}
	return nil
}

func (c crashCase) cut(r *crashRun, ops int, loss disktest.Loss, rng *rand.Rand, rep *crashReport) {
	v := r.aftermath(r.disk.CutAt(ops, loss, rng), ops, loss.Alive, c.lenient, rng, rng.IntN(4) == 0)
	name := loss.String()
	rep.cuts[name]++
	if v.excused > 0 {
		rep.excused[name]++
	}
	if len(v.problems) > 0 {
		rep.bad[name]++
		if rep.first[name] == "" {
			rep.first[name] = fmt.Sprintf("seed %d, %v, cut after %d operations:\n  %s\n  notes: %s\n%s", c.seed, loss, ops,
				strings.Join(v.problems, "\n  "), strings.Join(v.notes, "\n  "), r.story(ops, strings.Join(v.problems, " ")))
		}
	}
}

func (rep *crashReport) log(t *testing.T) {
	t.Helper()
	for _, l := range crashLosses() {
		t.Logf("%-40s %6d cuts, %5d bad, %5d that need a journal", l, rep.cuts[l.String()], rep.bad[l.String()], rep.excused[l.String()])
	}
}

func (rep *crashReport) fail(t *testing.T) {
	t.Helper()
	rep.log(t)
	for _, f := range rep.first {
		t.Error(f)
	}
}

// geometries that differ in what lies where.
func crashParams() []vault.Params {
	return []vault.Params{{SegmentSize: 64 << 10, FrameSize: 4 << 10}, {SegmentSize: 16 << 10, FrameSize: 4 << 10}}
}

// Every cut of short runs, and cuts at random of long ones, for some seconds. COFFER_CRASH_TIME says how long instead, COFFER_CRASH_SEED which
// run comes first, and COFFER_CRASH_STRICT=1 judges as needsJournal does.
func TestCrash(t *testing.T) {
	budget, seed := 8*time.Second, uint64(1)
	if os.Getenv("COFFER_LONG") == "1" {
		budget, seed = 5*time.Minute, uint64(time.Now().UnixNano())
	}
	if testing.Short() {
		budget = 3 * time.Second
	}
	if s := os.Getenv("COFFER_CRASH_TIME"); s != "" {
		var err error
		if budget, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("COFFER_CRASH_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	lenient := !needsJournal && os.Getenv("COFFER_CRASH_STRICT") != "1"
	t.Logf("seed %d, lenient %v", seed, lenient)
	bases := []crashBase{}
	for _, p := range crashParams() {
		bases = append(bases, newCrashBase(t, p))
	}
	rep, runs := newCrashReport(), 0
	for end := time.Now().Add(budget); runs < 2 || time.Now().Before(end); runs++ {
		c := crashCase{seed: seed + uint64(runs), steps: 40, lenient: lenient, losses: crashLosses(), every: true}
		if c.seed%2 == 1 { // all of a run hangs on its seed
			c.steps, c.every, c.cuts = 300, false, 60
		}
		if err := c.run(bases[c.seed/2%uint64(len(bases))], rep); err != nil {
			t.Fatalf("seed %d: %v", c.seed, err)
		}
		if len(rep.first) > 0 {
			break // there is something to look at
		}
	}
	t.Logf("%d runs", runs)
	rep.fail(t)
}
