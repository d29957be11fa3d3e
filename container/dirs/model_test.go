package dirs

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"golang.org/x/sys/unix"
)

// worker owns all names that start with its letter, in directories that all workers share, and so knows what they must carry,
// whatever the others do. Among its names are directories, which it moves with others working below.
type worker struct {
	v      *vault
	t      *testing.T
	rng    *rand.Rand
	letter string
	shared []*Dir
	own    []map[string]Entry // per shared directory
}

func (w *worker) name() string {
	n := fmt.Sprintf("%s%d", w.letter, w.rng.IntN(6))
	if w.rng.IntN(8) == 0 {
		n += longName[:200]
	}
	return n
}

// want compares an answer with what the model says.
func (w *worker) want(what string, err, want error) bool {
	if want == nil && err != nil || !errors.Is(err, want) {
		w.t.Errorf("worker %s: %s: %v, want %v", w.letter, what, err, want)
		return false
	}
	return err == nil
}

func (w *worker) step() {
	i, k := w.rng.IntN(len(w.shared)), w.rng.IntN(len(w.shared))
	d, own, name := w.shared[i], w.own[i], w.name()
	e, exists := own[name]
	isDir := exists && e.Type == names.Dir
	switch w.rng.IntN(10) {
	case 0, 1:
		f, e, err := d.CreateFile(name, 0o600, -1, -1)
		if w.want("create", err, when(exists, unix.EEXIST)) {
			f.Close()
			own[name] = e
		}
	case 2:
		e, err := d.Mkdir(name, 0o700, -1, -1)
		if w.want("mkdir", err, when(exists, unix.EEXIST)) {
			own[name] = e
		}
	case 3:
		_, err := d.Unlink(name)
		if w.want("unlink", err, cond(!exists, unix.ENOENT, isDir, unix.EISDIR)) {
			delete(own, name)
		}
	case 4:
		_, err := d.Rmdir(name)
		if w.want("rmdir", err, cond(!exists, unix.ENOENT, !isDir, unix.ENOTDIR)) {
			delete(own, name)
		}
	case 5:
		got, err := d.Lookup(name)
		if w.want("lookup", err, when(!exists, unix.ENOENT)) && got != e {
			w.t.Errorf("worker %s: lookup answers %+v, want %+v", w.letter, got, e)
		}
		var st unix.Stat_t
		id := e.ID
		if w.want("stat", d.Stat(name, id, &st), when(!exists, ErrStale)) && st.Mode&unix.S_IFMT != e.Type.Mode() {
			w.t.Errorf("worker %s: stat of another object", w.letter)
		}
	case 6:
		to, new := w.own[k], w.name()
		_, taken := to[new]
		got, err := w.shared[k].Link(new, d, name, e.ID, true)
		if w.want("link", err, cond(!exists, ErrStale, taken, unix.EEXIST, isDir, unix.EPERM)) {
			to[new] = got
		}
	default:
		w.rename(i, k, name)
	}
}

func (w *worker) rename(i, k int, old string) {
	own, to, new := w.own[i], w.own[k], w.name()
	flags := []uint{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[w.rng.IntN(3)]
	e, exists := own[old]
	was, taken := to[new]
	exchange := flags == unix.RENAME_EXCHANGE
	moved, replaced, err := w.v.Rename(w.shared[i], old, w.shared[k], new, flags)
	eDir, wDir := e.Type == names.Dir, was.Type == names.Dir
	if !w.want("rename", err, cond(!exists, unix.ENOENT, exchange && !taken, unix.ENOENT,
		flags == unix.RENAME_NOREPLACE && taken, unix.EEXIST,
		exchange || !taken || e.ID == was.ID, nil,
		eDir && !wDir, unix.ENOTDIR, !eDir && wDir, unix.EISDIR)) {
		return
	}
	if taken && e.ID == was.ID {
		return
	}
	if moved.ID != e.ID || moved.Name != new || (replaced != nil) != taken {
		w.t.Errorf("worker %s: rename answers %+v, %+v", w.letter, moved, replaced)
	}
	delete(own, old)
	to[new] = moved
	if exchange {
		own[old] = *replaced
	}
}

func when(c bool, err error) error {
	if c {
		return err
	}
	return nil
}

// cond answers the error behind the first condition that holds.
func cond(pairs ...any) error {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i].(bool) {
			err, _ := pairs[i+1].(error)
			return err
		}
	}
	return nil
}

// TestConcurrent: workers with names of their own in directories that one mover moves about, while readers look and memory and descriptors are
// short. In the end maps, models and host agree.
func TestConcurrent(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	steps := 1500
	if testing.Short() {
		steps = 200
	}
	v := newVault(t, func(c *Config) { c.MaxOpenDirs, c.MaxEntries = 2, 20 })
	shared := []*Dir{v.Root()}
	for i := range 4 {
		shared = append(shared, v.mkdir(shared[i/2], fmt.Sprintf("shared%d", i)))
	}
	var workers []*worker
	var wg, background sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		w := &worker{v: v, t: t, rng: rand.New(rand.NewPCG(seed, uint64(i))), letter: string(rune('p' + i)), shared: shared}
		for range shared {
			w.own = append(w.own, make(map[string]Entry))
		}
		workers = append(workers, w)
		wg.Go(func() {
			for range steps {
				w.step()
			}
		})
	}
	where := map[*Dir]string{}
	background.Go(func() { where = move(t, v, shared, rand.New(rand.NewPCG(seed, 100)), done) })
	background.Go(func() { look(t, shared, rand.New(rand.NewPCG(seed, 101)), done) })
	wg.Wait()
	close(done)
	background.Wait()

	v.quiet()
	for pass := range 2 {
		objects := 0
		for i, d := range shared {
			want := make(map[string]Entry)
			for _, w := range workers {
				maps.Copy(want, w.own[i])
			}
			if pass == 1 {
				d = v.dir(strings.TrimPrefix(where[shared[i]], "/"))
			}
			all, err := d.Entries()
			ok(t, err)
			for _, e := range all {
				objects++
				if n := (names.Link{Name: e.Name}); n.IsLong() { // its sidecar
					objects++
				}
				if strings.HasPrefix(e.Name, "shared") {
					continue
				}
				if want[e.Name] != e {
					t.Errorf("pass %d: %+v, want %+v", pass, e, want[e.Name])
				}
				delete(want, e.Name)
			}
			if len(want) != 0 {
				t.Errorf("pass %d: missing %v", pass, slices.Collect(maps.Keys(want)))
			}
		}
		if n := hostCount(t, v.path); n != objects {
			t.Errorf("pass %d: %d host objects, want %d", pass, n, objects)
		}
		if pass == 0 {
			if v.fds.n > 2 {
				t.Errorf("%d descriptors are open", v.fds.n)
			}
			v.mount()
		}
	}
	v.quiet()
}

// move moves the shared directories about and answers their last places. It knows them all, being the only one that moves them.
func move(t *testing.T, v *vault, shared []*Dir, rng *rand.Rand, done chan struct{}) map[*Dir]string {
	type place struct {
		parent *Dir
		name   string
	}
	at := make(map[*Dir]place)
	for i, d := range shared[1:] {
		at[d] = place{shared[i/2], fmt.Sprintf("shared%d", i)}
	}
	below := func(d, top *Dir) bool {
		for ; d != nil; d = at[d].parent {
			if d == top {
				return true
			}
		}
		return false
	}
	for i := 0; ; i++ {
		select {
		case <-done:
			where := map[*Dir]string{shared[0]: ""}
			for _, d := range shared[1:] {
				path := ""
				for x := d; at[x].parent != nil; x = at[x].parent {
					path = "/" + at[x].name + path
				}
				where[d] = path
			}
			return where
		default:
		}
		x, y := shared[1+rng.IntN(len(shared)-1)], shared[rng.IntN(len(shared))]
		from := at[x]
		if rng.IntN(3) == 0 && y != shared[0] && x != y {
			other := at[y]
			_, _, err := v.Rename(from.parent, from.name, other.parent, other.name, unix.RENAME_EXCHANGE)
			if below(x, y) || below(y, x) {
				if err != unix.EINVAL {
					t.Errorf("exchange of a directory with its parent: %v", err)
				}
			} else if err != nil {
				t.Errorf("exchange: %v", err)
			} else {
				at[x], at[y] = other, from
			}
			continue
		}
		to := place{y, fmt.Sprintf("shared%d", i%50+50)}
		taken := slices.Contains(slices.Collect(maps.Values(at)), to)
		want := cond(taken, unix.EEXIST, below(y, x), unix.EINVAL) // in Linux's order
		if _, _, err := v.Rename(from.parent, from.name, to.parent, to.name, unix.RENAME_NOREPLACE); err != want {
			t.Errorf("rename of a directory: %v, want %v", err, want)
		} else if err == nil {
			at[x] = to
		}
	}
}

// look reads without knowing what it must see; nothing may be damaged.
func look(t *testing.T, shared []*Dir, rng *rand.Rand, done chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		d := shared[rng.IntN(len(shared))]
		var st unix.Stat_t
		if err := d.StatSelf(&st); err != nil {
			t.Error(err)
		}
		all, err := d.Entries()
		if err != nil {
			t.Error(err)
		}
		for _, e := range all {
			if err := d.Stat(e.Name, e.ID, &st); err != nil && err != ErrStale {
				t.Error(err)
			}
			x, err := d.Child(e.Name, e.ID)
			if err != nil {
				if err != ErrStale && err != unix.ENOTDIR {
					t.Error(err)
				}
				continue
			}
			if _, err := x.Entries(); err != nil {
				t.Error(err)
			}
			x.Release()
		}
		if _, err := d.Child("none", keys.RandomObjectID()); err != ErrStale {
			t.Error(err)
		}
	}
}
