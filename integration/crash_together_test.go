package integration

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// together is a file of one worker of TestCrashMadeTogether: under which of its names it may be, "" for none.
type together struct {
	stamp      uint64
	cut, death []string // after a loss of power, and after the death of the process
}

// New files come, are synced, move, get another name and go in one directory, by several at once, with two syncs of a file at a time and checkpoints
// between; the disk is cut in the midst of that.
func TestCrashMadeTogether(t *testing.T) {
	m, mk, err := newCrashDisk(vault.Params{})
	if err != nil {
		t.Fatal(err)
	}
	defer mk.Destroy()
	s, err := openCrash(m.Root(), mk, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.abandon(m)
	var (
		mu    sync.Mutex // guards files, and is held over a cut
		files = map[string]*together{}
		names sync.Mutex // the kernel's lock of the directory
		wg    sync.WaitGroup
	)
	stop := make(chan struct{})
	worker := func(w int) {
		rng := rand.New(rand.NewPCG(uint64(w), 7))
		k := newKernel(s.FS)
		check := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		named := func(fn func() error) {
			names.Lock()
			defer names.Unlock()
			check(fn())
		}
		for i := 0; i < 400 && !t.Failed(); i++ {
			time.Sleep(time.Millisecond) // what is judged gets more and more
			select {
			case <-stop:
				return
			default:
			}
			a, b := fmt.Sprintf("%d-%d", w, i), fmt.Sprintf("%d-%d-b", w, i)
			f := &together{stamp: uint64(1 + i%9)}
			may := func(cut, death []string) {
				mu.Lock()
				f.cut, f.death = cut, death
				files[a] = f
				mu.Unlock()
			}
			var node, fh uint64
			named(func() (err error) { node, _, fh, err = k.create(madeRoot, a); return err })
			check(k.write(node, fh, slices.Repeat(stampedPage(f.stamp), 1+i%3), 0))
			var both sync.WaitGroup
			both.Go(func() { check(k.fsync(node, fh, true)) })
			check(k.fsync(node, fh, false))
			may([]string{a}, []string{a})
			both.Wait()
			at := a
			if i%4 == 0 {
				may([]string{a, b}, []string{a, b})
				named(func() error { return k.rename(madeRoot, a, madeRoot, b, 0) })
				may([]string{a, b}, []string{b})
				at = b
			}
			check(k.close(node, fh, unix.O_RDWR))
			if rng.IntN(3) == 0 {
				check(k.fsyncDir(madeRoot))
				may([]string{at}, []string{at})
			}
			if rng.IntN(3) > 0 {
				cut := []string{a, b, ""}
				may(cut, []string{at, ""})
				named(func() error { return k.unlink(madeRoot, at) })
				may(cut, []string{""})
				if rng.IntN(2) == 0 {
					check(k.fsyncDir(madeRoot))
					may([]string{""}, []string{""})
				}
			}
			k.forget(node)
		}
	}
	for w := range 4 {
		wg.Go(func() { worker(w) })
	}
	wg.Go(func() {
		for !t.Failed() {
			select {
			case <-stop:
				return
			default:
				if err := s.Engine.Checkpoint(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for n := range uint64(times(16, 64)) {
		loss := crashLosses()[n%uint64(len(crashLosses()))]
		mu.Lock()
		d := m.Cut(loss, rand.New(rand.NewPCG(n, 1)))
		now := map[string]together{}
		for name, f := range files {
			now[name] = *f
		}
		mu.Unlock()
		for _, p := range judgeTogether(t, d, mk, now, loss) {
			t.Errorf("cut %d, %v: %s", n, loss, p)
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d files", len(files))
}

// judgeTogether tells what is not where it may be.
func judgeTogether(t *testing.T, d *disktest.Memory, mk *keys.MasterKey, files map[string]together, loss disktest.Loss) (problems []string) {
	t.Helper()
	r := &madeRun{t: t}
	var err error
	r.s, err = openCrash(d.Root(), mk, true)
	r.must(err)
	r.k = newKernel(r.s.FS)
	for a, f := range files {
		allowed := f.cut
		if loss.Alive {
			allowed = f.death
		}
		var at []string
		for _, name := range []string{a, a + "-b"} {
			for pages := 1; ; pages++ {
				stamp, err := r.holds(madeRoot, name, pages)
				if err != nil && pages < 3 {
					continue
				}
				if stamp != 0 || err != nil {
					at = append(at, name)
				}
				if err != nil || stamp != 0 && stamp != f.stamp {
					problems = append(problems, fmt.Sprintf("%s holds %d, not %d, %v", name, stamp, f.stamp, err))
				}
				break
			}
		}
		if is := strings.Join(at, " and "); !slices.Contains(allowed, is) {
			problems = append(problems, fmt.Sprintf("a file is at %q, not at one of %q", is, allowed))
		}
	}
	r.must(r.s.Close())
	return problems
}
