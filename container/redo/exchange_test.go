package redo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/internal/vectors"
	"github.com/cofferfs/coffer/journal"
)

func exchangeVectors() map[string]*vectors.Vector {
	all := map[string]*vectors.Vector{}
	add := func(name, expect, comment string, b []byte) *vectors.Vector {
		v := new(vectors.Vector).Set("expect", expect).Set("comment", comment).SetHex("head", b)
		all["exchange_"+name] = v
		return v
	}
	name := func(s string) string { return string([]byte{byte(len(s))}) + s }
	const (
		head  = "\x02\x00\x02\x00\x00\x00\x00\x00\x07\x06\x05\x04\x03\x02\x01\x00"
		none  = "\x00\x00\x00\x00"
		two   = "\x02\x00\x00\x00"
		over  = "\x02\x01\x00\x00\x00\x00\x00\x00\x07\x06\x05\x04\x03\x02\x01\x00"
		empty = "\x02\x00\x00\x00\x00\x00\x00\x00\x07\x06\x05\x04\x03\x02\x01\x00"
	)
	steps := none + two + name("d") + name("e") + name("old") + name("new") + none + none + name("a") + name("b")
	add("two_steps", "success", "from the root to a directory at depth 2, and within the root", []byte(head+steps)).
		SetUint("id", 0x01020304050607).Set("over", "false").Set("steps", "old -> d/e/new, a -> b")
	add("over", "success", "the exchange is over", []byte(over)).SetUint("id", 0x01020304050607).Set("over", "true").Set("steps", "")
	for n, c := range map[string]struct{ comment, head string }{
		"no_steps":        {"neither over nor steps", empty},
		"over_with_steps": {"over and steps", "\x02\x01" + head[2:] + steps},
		"flags":           {"an unknown flag", "\x02\x02" + head[2:] + steps},
		"reserved":        {"a reserved byte", head[:4] + "\x01" + head[5:] + steps},
		"short":           {"15 bytes", over[:15]},
		"cut":             {"the last byte is missing", (head + steps)[:len(head+steps)-1]},
		"tail":            {"a byte behind the steps", head + steps + "\x00"},
		"path_count":      {"more names than there are bytes", head + "\xff\xff\xff\xff" + steps[4:]},
		"empty_name":      {"a name of 0 bytes", head + none + none + name("") + name("b") + steps},
		"no_move":         {"old and new are the same name", head + none + none + name("a") + name("a") + none + none + name("a") + name("b")},
	} {
		add(n, "malformed", c.comment, []byte(c.head))
	}
	add("of_file", "malformed", "the kind of a file", []byte("\x01"+(head + steps)[1:]))
	return all
}

func stepsText(x *Exchange) string {
	var all []string
	for _, s := range x.Steps {
		at := func(path []string, name string) string { return strings.Join(append(slices.Clone(path), name), "/") }
		all = append(all, at(s.From, s.Old)+" -> "+at(s.To, s.New))
	}
	return strings.Join(all, ", ")
}

func TestExchangeVectors(t *testing.T) {
	paths := vectors.Sync(t, vectorDir, "exchange_", exchangeVectors(), *update)
	vectors.Run(t, paths, expectations, func(t *testing.T, v *vectors.Vector) error {
		x, err := ParseExchange(v.Hex("head"))
		if err != nil {
			return err
		}
		if x.ID != v.Uint("id") || fmt.Sprint(x.Over) != v.Get("over") || stepsText(x) != v.Get("steps") {
			t.Errorf("parsed %+v", x)
		}
		if again := x.Append([]byte{9}); !bytes.Equal(again[1:], v.Hex("head")) {
			t.Errorf("re-encoded %x", again)
		}
		b, err := Over(v.Hex("head"))
		if o, perr := ParseExchange(b); err != nil || perr != nil || !o.Over || o.ID != x.ID {
			t.Errorf("over: %+v, %v, %v", o, err, perr)
		}
		return nil
	})
}

// FuzzParseExchange: nothing panics, and what parses is written back byte for byte.
func FuzzParseExchange(f *testing.F) {
	for _, v := range exchangeVectors() {
		f.Add(v.Hex("head"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ParseExchange(b)
		if err != nil {
			if x != nil || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrKind) {
				t.Fatalf("%+v, %v", x, err)
			}
			return
		}
		if again := x.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x is written back as %x", b, again)
		}
	})
}

// swap is an exchange of a file in one directory with a directory in another, whose names are long.
type swap struct {
	*lab
	src, dst spot
	x        Exchange
	a, b     spot // before
}

func newSwap(t testing.TB) *swap {
	l := newLab(t)
	s := &swap{lab: l}
	s.src, s.dst = l.mkdir(rootSpot, "src"), l.mkdir(l.mkdir(rootSpot, "up"), "dst")
	long := strings.Repeat("n", 200)
	s.a, s.b = l.file(s.src, long+"a", 'a', 10), l.mkdir(s.dst, long+"b")
	last := func(p spot) string { return p.path[len(p.path)-1] }
	aside := l.name(s.dst, names.Dir, s.b.id, ".coffer-exchange-0000000000000001")
	s.x = Exchange{ID: 77, Steps: []Step{
		{s.dst.path, s.dst.path, last(s.b), aside},
		{s.src.path, s.dst.path, last(s.a), l.name(s.dst, names.File, s.a.id, long+"b")},
		{s.dst.path, s.src.path, aside, l.name(s.src, names.Dir, s.b.id, long+"a")},
	}}
	ok(t, l.m.Root().SyncAll())
	return s
}

func (s *swap) intend() {
	_, err := s.j.Append(journal.Entry{Head: s.x.Append(nil)})
	ok(s.t, err)
}

// take takes steps from n to m.
func (s *swap) take(n, m int) {
	for _, step := range s.x.Steps[n:m] {
		ok(s.t, s.in(s.m, step.From).Rename(step.Old, s.in(s.m, step.To), step.New, 0))
	}
}

func (s *swap) list(m *disktest.Memory, path []string) []string {
	var all []string
	ok(s.t, s.in(m, path).List(func(name string, _ uint64, _ uint8) error { all = append(all, name); return nil }))
	slices.Sort(all)
	return all
}

// done fails unless the exchange is complete on m: the new names with their sidecars, and nothing else.
func (s *swap) done(m *disktest.Memory, src, dst spot, why string) {
	s.t.Helper()
	for _, c := range []struct {
		d    spot
		name string
	}{{src, s.x.Steps[2].New}, {dst, s.x.Steps[1].New}} {
		if got := s.list(m, c.d.path); !slices.Equal(got, []string{c.name, names.SidecarName(c.name)}) {
			s.t.Fatalf("%s: directory holds %q", why, got)
		}
	}
}

// However far the renames came, and whichever of them were kept, replay takes the rest; a cut in it is another cut.
func TestExchangeFinished(t *testing.T) {
	for taken := range 4 {
		s := newSwap(t)
		s.intend()
		s.take(0, taken)
		s.stop()
		s.m.Record()
		if res := s.replay(); res.Exchanges != 1 || res.Files != 0 {
			t.Errorf("%+v", res)
		}
		s.done(s.m, s.src, s.dst, fmt.Sprintf("%d steps", taken))
		for k := range s.m.Ops() + 1 {
			for _, loss := range []disktest.Loss{disktest.LoseAll, disktest.LoseNothing, disktest.LoseSectors512, disktest.LoseTail, disktest.Killed} {
				m := s.m.CutAt(k, loss, newRNG(k))
				_, err := Replay(s.config(m))
				ok(t, err)
				s.done(m, s.src, s.dst, fmt.Sprintf("%d steps, cut after %d operations, %v", taken, k, loss))
			}
		}
	}
	// The renames were not synced, and any of them may be lost.
	s := newSwap(t)
	s.intend()
	ok(t, s.j.Sync(s.j.End()))
	s.take(0, 3)
	for seed := range 30 {
		m := s.m.Cut(disktest.LoseSectors512, newRNG(*testSeed+seed))
		_, err := Replay(s.config(m))
		ok(t, err)
		s.done(m, s.src, s.dst, fmt.Sprintf("seed %d", *testSeed+seed))
	}
}

// What came after an exchange that was finished, or undone, stands.
func TestExchangeOver(t *testing.T) {
	s := newSwap(t)
	s.intend()
	b, err := Over(s.x.Append(nil))
	ok(t, err)
	_, err = s.j.Append(journal.Entry{Head: b})
	ok(t, err)
	s.stop()
	if res := s.replay(); res.Exchanges != 0 {
		t.Errorf("%+v", res)
	}
	if got := s.list(s.m, s.src.path); !slices.Contains(got, s.x.Steps[1].Old) {
		t.Errorf("an exchange that was undone was taken: %q", got)
	}

	s = newSwap(t) // done, and both went elsewhere since; nothing says that it is over
	s.intend()
	s.take(0, 3)
	s.rename(s.src.child(s.b.id, s.x.Steps[2].New), rootSpot, names.Dir, "b")
	ok(t, s.in(s.m, s.dst.path).Unlink(s.x.Steps[1].New))
	s.stop()
	all := func() string { return fmt.Sprint(s.list(s.m, nil), s.list(s.m, s.src.path), s.list(s.m, s.dst.path)) }
	before := all()
	s.replay()
	if after := all(); after != before {
		t.Errorf("names changed that an exchange had long left: %s, were %s", after, before)
	}

	s = newSwap(t) // undone, then one of the two was removed
	s.intend()
	ok(t, s.in(s.m, s.src.path).Unlink(s.x.Steps[1].Old))
	s.stop()
	s.replay()
	if got := s.list(s.m, s.dst.path); !slices.Contains(got, s.x.Steps[0].Old) {
		t.Errorf("one half of an exchange was taken: %q", got)
	}
}

// A host that kept a new name and not that the old one went: the old one stays beside it, as a name with a lower sequence.
func TestExchangeBothNames(t *testing.T) {
	s := newSwap(t)
	s.intend()
	s.take(0, 1)
	step := s.x.Steps[1]
	ok(t, s.in(s.m, step.From).Link(step.Old, s.in(s.m, step.To), step.New))
	s.stop()
	s.replay()
	if got := s.list(s.m, s.src.path); len(got) != 4 || !slices.Contains(got, step.Old) || !slices.Contains(got, s.x.Steps[2].New) {
		t.Errorf("source holds %q", got)
	}
	if got := s.list(s.m, s.dst.path); len(got) != 2 || !slices.Contains(got, step.New) {
		t.Errorf("target holds %q", got)
	}
}

// A directory of the exchange was renamed meanwhile, or its parent; or it is gone.
func TestExchangeMoved(t *testing.T) {
	s := newSwap(t)
	s.intend()
	s.take(0, 1)
	src := s.rename(s.src, rootSpot, names.Dir, "elsewhere")
	up := s.rename(spot{s.parentID(s.dst), s.dst.path[:1]}, src, names.Dir, "up")
	dst := up.child(s.dst.id, s.dst.path[1])
	s.x.Steps[0].From = nil // what is compared below
	s.stop()
	s.replay()
	if got := s.list(s.m, dst.path); !slices.Contains(got, s.x.Steps[1].New) || len(got) != 2 {
		t.Errorf("target holds %q", got)
	}
	if got := s.list(s.m, src.path); !slices.Contains(got, s.x.Steps[2].New) {
		t.Errorf("source holds %q", got)
	}

	s = newSwap(t)
	s.intend()
	ok(t, s.in(s.m, s.src.path).Unlink(s.x.Steps[1].Old))
	for _, name := range s.list(s.m, s.src.path) {
		ok(t, s.in(s.m, s.src.path).Unlink(name))
	}
	ok(t, s.m.Root().Rmdir(s.src.path[0]))
	s.stop()
	if res := s.replay(); res.Exchanges != 1 {
		t.Errorf("%+v", res)
	}
	if got := s.list(s.m, s.dst.path); !slices.Contains(got, s.x.Steps[0].Old) {
		t.Errorf("an exchange without its source was begun: %q", got)
	}
}

func (s *swap) parentID(p spot) (id [16]byte) {
	l, err := testCodec.Open(testRoot, p.path[0])
	ok(s.t, err)
	return l.ID
}

// Files are looked for where an exchange has put them.
func TestExchangeThenFiles(t *testing.T) {
	s := newSwap(t)
	h := s.a.images(0, block)
	h.Timed, h.Mtime = true, unix.Timespec{Sec: 3}
	s.put(h, "z")
	s.intend()
	s.take(0, 1)
	s.stop()
	s.m.Record()
	view, err := Load(s.config(s.m))
	ok(t, err)
	if view.Close(); s.m.Ops() != 0 || !s.has(event.Info) {
		t.Errorf("%d operations, events %v", s.m.Ops(), s.events)
	}
	s.replay()
	s.want(s.m, s.dst.child(s.a.id, s.x.Steps[1].New), "[4096 z]")
	s.done(s.m, s.src, s.dst, "with a file")
}

// However far the renames came, a View shows the exchange as a replay leaves it, and renames nothing.
func TestExchangeView(t *testing.T) {
	for taken := range 4 {
		s := newSwap(t)
		inB := s.file(s.b, "within", 'w', 5)
		ok(t, s.m.Root().SyncAll())
		s.intend()
		s.take(0, taken)
		s.stop()
		s.m.Record()
		v, err := Load(s.config(s.m))
		ok(t, err)
		root := v.Root(s.m.Root())
		at := func(p spot) disk.Dir {
			d := root
			for _, name := range p.path {
				d, err = d.OpenDir(name)
				ok(t, err)
			}
			return d
		}
		src, dst, file, dir := at(s.src), at(s.dst), s.x.Steps[1].New, s.x.Steps[2].New
		for d, name := range map[disk.Dir]string{src: dir, dst: file} {
			var all []string
			ok(t, d.List(func(name string, ino uint64, typ uint8) error {
				all = append(all, name)
				var st unix.Stat_t
				err := d.Stat(name, &st)
				if err == nil && (st.Ino != ino || uint8(st.Mode>>12) != typ) {
					err = fmt.Errorf("%s is listed as %d of type %d, and is %+v", name, ino, typ, st)
				}
				return err
			}))
			if slices.Sort(all); !slices.Equal(all, []string{name, names.SidecarName(name)}) {
				t.Errorf("%d steps: directory shows %q", taken, all)
			}
		}
		f, err := dst.Open(file, disk.ReadOnly)
		ok(t, err)
		if got := letters(readAll(t, f)); got != "[10 a]" {
			t.Errorf("%d steps: the file holds %s", taken, got)
		}
		below, err := src.OpenDir(dir)
		ok(t, err)
		if f, err = below.Open(inB.path[len(inB.path)-1], disk.ReadOnly); err != nil || letters(readAll(t, f)) != "[5 w]" {
			t.Errorf("%d steps: in the directory: %v", taken, err)
		}
		for _, step := range s.x.Steps {
			_, err = src.Open(step.Old, disk.ReadOnly)
			wantErr(t, err, unix.ENOENT)
			_, err = dst.OpenPath(step.Old)
			wantErr(t, err, unix.ENOENT)
		}
		said := slices.ContainsFunc(s.events, func(e event.Event) bool { return strings.Contains(e.Note, "was under way") })
		if s.m.Ops() != 0 || said != (taken < 3) || s.has(event.Failed) {
			t.Errorf("%d steps: %d operations, events %v", taken, s.m.Ops(), s.events)
		}
		v.Close()
	}
}
