package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// faultRun makes system calls at random on a vault whose host fails.
type faultRun struct {
	rng   *rand.Rand
	disk  *disktest.Memory
	key   *keys.MasterKey
	stack *crashStack
	k     *kernel
	names faultNames
	nodes map[*faultFile]uint64
	open  map[*faultFile]uint64 // handles
	stamp uint64
	story []string
	errs  int
}

func newFaultRun(base crashBase, seed uint64) (*faultRun, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	r := &faultRun{rng: rng, disk: base.disk.Cut(disktest.LoseNothing, rng), key: base.key, names: faultNames{}}
	for _, name := range []string{"a", "b", "c", "d"} {
		m := certainly[*faultFile](nil)
		r.names[name] = &m
	}
	return r, r.mount()
}

func (r *faultRun) mount() (err error) {
	r.nodes, r.open = map[*faultFile]uint64{}, map[*faultFile]uint64{}
	if r.stack, err = openCrash(r.disk.Root(), r.key, r.rng.IntN(2) == 0); err == nil {
		r.k = newKernel(r.stack.FS)
		r.k.remade = r.disk.Remade()
	}
	return err
}

func (r *faultRun) say(err error, format string, args ...any) {
	if err != nil {
		r.errs++
	}
	r.story = append(r.story, fmt.Sprintf("call %d: ", r.disk.Calls())+fmt.Sprintf(format, args...)+fmt.Sprintf(": %v", err))
}

// find looks a name up, which tells what it is of; nil where there is nothing or the lookup failed, which ok tells apart.
func (r *faultRun) find(name string) (f *faultFile, ok bool) {
	m := r.names[name]
	node, a, err := r.k.lookup(fuse.FUSE_ROOT_ID, name)
	switch {
	case err == unix.ENOENT:
		if slices.Contains(m.live, nil) {
			m.live = []*faultFile{nil}
		}
		return nil, true
	case err != nil:
		r.say(err, "lookup %s", name)
		return nil, false
	}
	for _, x := range m.live {
		if x != nil && x != unborn && x.ino == a.Ino {
			f = x
		}
	}
	if f == nil && slices.Contains(m.live, unborn) {
		f = newFaultFile(a.Ino)
		m.since = including(m.since, f)
	}
	if f != nil {
		m.live = []*faultFile{f}
		r.nodes[f] = node
	}
	return f, f != nil
}

func (r *faultRun) pick() (string, *faultFile, bool) {
	name := string(rune('a' + r.rng.IntN(len(r.names))))
	f, ok := r.find(name)
	return name, f, ok
}

// handle answers an open handle of f.
func (r *faultRun) handle(name string, f *faultFile) (uint64, error) {
	if fh, ok := r.open[f]; ok {
		return fh, nil
	}
	fh, err := r.k.open(r.nodes[f], unix.O_RDWR)
	if err == nil {
		r.open[f] = fh
	} else {
		r.say(err, "open %s", name)
	}
	return fh, err
}

func (r *faultRun) create(name string) {
	node, a, fh, err := r.k.create(fuse.FUSE_ROOT_ID, name)
	f := unborn
	if err == nil {
		f = newFaultFile(a.Ino)
		r.nodes[f], r.open[f] = node, fh
	}
	r.names[name].set(f, err)
	r.say(err, "create %s", name)
}

func (r *faultRun) write(name string, f *faultFile) {
	fh, err := r.handle(name, f)
	if err != nil {
		return
	}
	first, n := r.rng.Int64N(40), 1+r.rng.Int64N(3)
	if r.rng.IntN(4) == 0 {
		n = 1 + r.rng.Int64N(40)
	}
	r.stamp++
	err = r.k.write(r.nodes[f], fh, bytes.Repeat(stampedPage(r.stamp), int(n)), first*page)
	f.wrote(first, n, r.stamp, err)
	r.say(err, "write %s, pages %d to %d, stamp %d", name, first, first+n, r.stamp)
}

func (r *faultRun) truncate(name string, f *faultFile, to int64) error {
	err := r.k.truncate(r.nodes[f], to*page)
	f.truncated(to, err)
	r.say(err, "truncate %s to %d pages", name, to)
	return err
}

func (r *faultRun) fsync(name string, f *faultFile, dataOnly bool) {
	fh, err := r.handle(name, f)
	if err != nil {
		return
	}
	err = r.k.fsync(r.nodes[f], fh, dataOnly)
	r.say(err, "fsync %s", name)
	if err != nil {
		f.doubt()
		return
	}
	f.promise()
	for _, m := range r.names {
		if slices.Equal(m.live, []*faultFile{f}) {
			m.promise()
		}
	}
}

func (r *faultRun) close(name string, f *faultFile) {
	fh, ok := r.open[f]
	if !ok {
		return
	}
	delete(r.open, f)
	err := r.k.close(r.nodes[f], fh, unix.O_RDWR)
	r.say(err, "close %s", name)
	if err != nil {
		f.doubt()
	}
}

func (r *faultRun) rename(name, to string, f *faultFile) {
	old, ok := r.find(to)
	if !ok || name == to {
		return
	}
	err := r.k.rename(fuse.FUSE_ROOT_ID, name, fuse.FUSE_ROOT_ID, to, 0)
	r.say(err, "rename %s to %s", name, to)
	r.names[to].set(f, err)
	r.names[name].set(nil, err)
	if old != nil && err == nil {
		r.close(to, old)
	}
}

func (r *faultRun) unlink(name string, f *faultFile) error {
	err := r.k.unlink(fuse.FUSE_ROOT_ID, name)
	r.say(err, "unlink %s", name)
	r.names[name].set(nil, err)
	if err == nil {
		r.close(name, f)
	}
	return err
}

// rollbacks is crashRun.rollbacks: the last file is begun with from its first WRITE on.
func (r *faultRun) rollbacks(name string) {
	for i := range 3 {
		r.create(name)
		f, ok := r.find(name)
		if !ok || f == nil {
			return
		}
		r.write(name, f)
		if i == 2 {
			return
		}
		r.fsync(name, f, true)
		r.write(name, f)
		r.fsync(name, f, true)
		if r.unlink(name, f) != nil {
			return
		}
	}
}

func (r *faultRun) step() {
	name, f, ok := r.pick()
	switch n := r.rng.IntN(100); {
	case !ok:
	case f == nil && n < 20:
		r.rollbacks(name)
	case f == nil:
		r.create(name)
	case n < 40:
		r.write(name, f)
	case n < 60:
		r.fsync(name, f, r.rng.IntN(2) == 0)
	case n < 70:
		_ = r.truncate(name, f, r.rng.Int64N(45))
	case n < 80:
		r.close(name, f)
	case n < 86:
		err := r.k.fsyncDir(fuse.FUSE_ROOT_ID)
		r.say(err, "fsync of the directory")
		if err == nil {
			for _, m := range r.names {
				m.promise()
			}
		}
	case n < 92:
		r.rename(name, string(rune('a'+r.rng.IntN(len(r.names)))), f)
	case n < 95:
		_ = r.unlink(name, f)
	default:
		r.say(r.stack.Engine.Checkpoint(), "checkpoint")
	}
}

// faultCase is one workload and one fault.
type faultCase struct {
	seed  uint64
	steps int
	fault disktest.Fault
	space int64 // of the disk from the first step on, in bytes, where it is not 0; there is room again at the end
}

// run makes the workload while the host fails, goes on with a host that is well again, and judges. calls is how many the workload made.
func (c faultCase) run(base crashBase) (calls int, err error) {
	r, err := newFaultRun(base, c.seed)
	if err != nil {
		return 0, err
	}
	check := func(what string, problems ...string) bool {
		if len(problems) > 0 && err == nil {
			err = fmt.Errorf("seed %d, %s: %s\nnotes: %s\n%s", c.seed, what, strings.Join(problems, "; "),
				strings.Join(r.stack.notes.all(), "\n  "), strings.Join(r.story, "\n"))
		}
		return err == nil
	}
	defer func() { r.stack.abandon(r.disk) }()
	r.disk.SetFault(c.fault)
	if c.space > 0 {
		r.disk.SetSpace(c.space)
	}
	for range c.steps {
		r.step()
	}
	calls = r.disk.Calls()
	r.disk.SetFault(nil)
	for _, loss := range []disktest.Loss{disktest.LoseAll, disktest.LoseTail, disktest.Killed} {
		if !check("after a cut, "+loss.String(), r.judge(r.disk.Cut(loss, r.rng))...) {
			return calls, err
		}
	}
	if c.space > 0 {
		r.disk.SetSpace(1 << 30)
		if e := r.recovers(); !check("when there is room again", says(e)...) {
			return calls, err
		}
	}
	if !check("with the host well again", r.names.compare(r.k, false)...) {
		return calls, err
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		if f, ok := r.find(name); ok && f != nil {
			r.close(name, f)
		}
	}
	e := r.stack.Close()
	r.say(e, "unmount")
	if e == nil {
		r.promiseAll()
	} else if c.space > 0 {
		check("unmount", e.Error())
	}
	for _, loss := range []disktest.Loss{disktest.LoseAll, disktest.Killed} {
		check("after the unmount, "+loss.String(), r.judge(r.disk.Cut(loss, r.rng))...)
	}
	return calls, err
}

func says(err error) []string {
	if err == nil {
		return nil
	}
	return []string{err.Error()}
}

// judge opens the vault on a disk that a cut left, which must work from there on.
func (r *faultRun) judge(m *disktest.Memory) []string {
	s, err := openCrash(m.Root(), r.key, true)
	if errors.Is(err, unix.ENOSPC) { // what was lost may need room again
		m.SetSpace(1 << 30)
		s, err = openCrash(m.Root(), r.key, true)
	}
	if err != nil {
		return []string{fmt.Sprintf("the vault does not open: %v", err)}
	}
	k := newKernel(s.FS)
	k.remade = m.Remade()
	problems := r.names.compare(k, true)
	m.SetSpace(1 << 30) // to read needs none
	_, _, fh, err := k.create(fuse.FUSE_ROOT_ID, "after")
	if err == nil {
		node, _, lerr := k.lookup(fuse.FUSE_ROOT_ID, "after")
		err = errors.Join(lerr, k.write(node, fh, stampedPage(1), 0), k.fsync(node, fh, false), k.close(node, fh, unix.O_RDWR))
	}
	problems = append(problems, says(errors.Join(err, s.Close()))...)
	if len(problems) > 0 {
		problems = append(problems, s.notes.all()...)
	}
	return problems
}

// recovers has a change made durable, which works soon after there is room.
func (r *faultRun) recovers() (err error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		name, f, ok := r.pick()
		if !ok {
			continue
		}
		if f == nil {
			r.create(name)
			continue
		}
		before := r.errs
		r.write(name, f)
		r.fsync(name, f, r.rng.IntN(2) == 0)
		if r.errs == before {
			return nil
		}
		err = errors.New(r.story[len(r.story)-1])
	}
	return fmt.Errorf("no change works: %w", err)
}

func (r *faultRun) promiseAll() {
	for _, m := range r.names {
		m.promise()
		for _, f := range m.live {
			if f != nil {
				f.promise()
			}
		}
	}
}

// watched runs a case; one that hangs, or leaves goroutines behind, is an error.
func (c faultCase) watched(t *testing.T, base crashBase) (calls int) {
	t.Helper()
	before := runtime.NumGoroutine()
	done := make(chan error, 1)
	go func() {
		n, err := c.run(base)
		calls = n
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Minute):
		t.Fatalf("seed %d hangs:\n%s", c.seed, stacks())
	}
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("seed %d: %d goroutines are left, there were %d:\n%s", c.seed, runtime.NumGoroutine(), before, stacks())
		}
	}
	return calls
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// faultKinds are the faults at call number n.
func faultKinds(n int) map[string]disktest.Fault {
	is := func(c disktest.Call, ops ...string) bool { return slices.Contains(ops, c.Op) }
	return map[string]disktest.Fault{
		"EIO":          disktest.FailCall(n, unix.EIO),
		"EIO for good": disktest.FailFrom(n, unix.EIO),
		"ENOSPC":       disktest.FailCall(n, unix.ENOSPC),
		"EROFS for good": func(c disktest.Call) error {
			if c.N >= n && !is(c, "read", "fdatasync", "fsync", "syncfs", "stat", "open", "readdir") {
				return unix.EROFS
			}
			return nil
		},
		"short": disktest.FailCall(n, &disktest.Short{Keep: 1000, Err: unix.EIO}),
		"syncs for good": func(c disktest.Call) error {
			if c.N >= n && is(c, "fdatasync", "fsync", "syncfs") {
				return unix.EIO
			}
			return nil
		},
		"journal for good": func(c disktest.Call) error {
			if c.N >= n && strings.HasPrefix(c.Name, "journal.") {
				return unix.EIO
			}
			return nil
		},
		"places for good": func(c disktest.Call) error {
			if c.N >= n && c.Op == "write" && !strings.HasPrefix(c.Name, "journal.") {
				return unix.EIO
			}
			return nil
		},
	}
}

// Whatever host call fails, at whatever call of short workloads and at some of long ones: nothing hangs, nothing that was acknowledged is lost, and the vault opens
// again.
func TestFaults(t *testing.T) {
	base := newCrashBase(t, crashParams()[0])
	budget, calls := time.Duration(times(6, 200))*time.Second, 20
	if testing.Short() {
		calls = 4
	}
	runs := 0
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 0))
	if !long() {
		rng = rand.New(rand.NewPCG(1, 0))
	}
	for end, seed := time.Now().Add(budget), uint64(1); !t.Failed() && time.Now().Before(end); seed++ {
		steps := 25
		if seed%3 == 0 {
			steps = 150
		}
		most := faultCase{seed: seed, steps: steps}.watched(t, base)
		for range calls {
			n := rng.IntN(most)
			for name, fault := range faultKinds(n) {
				faultCase{seed: seed, steps: steps, fault: fault}.watched(t, base)
				runs++
				if t.Failed() {
					t.Fatalf("%s at call %d of %d", name, n, most)
				}
			}
		}
	}
	t.Logf("%d runs", runs)
}

// A disk that gets full at any point: the same, and once there is room everything works again.
func TestFaultsFull(t *testing.T) {
	base := newCrashBase(t, crashParams()[0])
	runs := 0
	for end, seed := time.Now().Add(time.Duration(times(5, 100))*time.Second), uint64(1); time.Now().Before(end); seed++ {
		rng := rand.New(rand.NewPCG(seed, 2))
		space := page + rng.Int64N(1<<20)
		if rng.IntN(2) == 0 {
			space += 8 << 20 // a piece of the journal fits
		}
		faultCase{seed: seed, steps: 60, space: space}.watched(t, base)
		runs++
		if t.Failed() {
			t.Fatalf("seed %d, %d bytes of room", seed, space)
		}
	}
	t.Logf("%d runs", runs)
}
