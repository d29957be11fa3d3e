package redo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// What of earlier transactions still means something after later ones.
func TestLastState(t *testing.T) {
	const k = block
	type step struct {
		head    Head
		letters string
	}
	head := func(length int64, freed []Range, pairs ...int64) Head {
		h := spot{}.images(pairs...)
		h.Length, h.Freed = length, freed
		return h
	}
	patch := func(pairs ...int64) Head {
		h := spot{}.images(pairs...)
		h.Images, h.Patches = nil, h.Images
		return h
	}
	for _, c := range []struct {
		name  string
		steps []step
		want  string // of a file that had three blocks of "o"
	}{
		{"image", []step{{head(-1, nil, k, k), "a"}}, "[4096 o 4096 a 4096 o]"},
		{"superseded", []step{{head(-1, nil, 0, 2*k), "a"}, {head(-1, nil, k, k), "b"}}, "[4096 a 4096 b 4096 o]"},
		{"superseded on both sides", []step{{head(-1, nil, k, k), "a"}, {head(-1, nil, 0, 3*k), "b"}}, "[12288 b]"},
		{"freed", []step{{head(-1, nil, 0, 3*k), "a"}, {head(-1, []Range{{k, k}}), ""}}, "[4096 a 4096 o 4096 a]"},
		{"freed, then written again", []step{{head(-1, nil, 0, k), "a"}, {head(-1, []Range{{0, k}}), ""}, {head(-1, nil, 0, k), "b"}}, "[4096 b 8192 o]"},
		{"freed by the transaction of the image", []step{{head(-1, nil, 0, k), "a"}, {head(-1, []Range{{0, 2 * k}}, k, k), "b"}}, "[4096 o 4096 b 4096 o]"},
		{"freed far beyond", []step{{head(-1, nil, 0, k, 2*k, k), "ab"}, {head(-1, []Range{{2 * k, 1 << 50}}), ""}}, "[4096 a 8192 o]"},
		{"cut", []step{{head(-1, nil, 0, 3*k), "a"}, {head(2*k, nil), ""}}, "[8192 a]"},
		{"cut within a block", []step{{head(-1, nil, 0, 3*k), "a"}, {head(k+100, nil), ""}}, "[4196 a]"},
		{"cut, then longer", []step{{head(-1, nil, 0, 3*k), "a"}, {head(k+100, nil), ""}, {head(3*k, nil), ""}}, "[4196 a 8092 o]"},
		{"cut, then written again", []step{{head(-1, nil, 0, 3*k), "a"}, {head(k, nil), ""}, {head(3*k, nil, 2*k, k), "b"}}, "[4096 a 4096 o 4096 b]"},
		{"longer", []step{{head(4*k+5, nil), ""}}, "[12288 o 4101 0]"},
		{"longer with an image", []step{{head(5*k, nil, 4*k, k), "a"}}, "[12288 o 4096 0 4096 a]"},
		{"a short image", []step{{head(-1, nil, k, 100), "a"}}, "[4096 o 100 a 8092 o]"},
		{"a short image over a long one", []step{{head(-1, nil, k, k), "a"}, {head(-1, nil, k, 100), "b"}}, "[4096 o 100 b 8092 o]"},
		{"an image beyond the length", []step{{head(k+10, nil, k, k), "a"}}, "[4096 o 10 a]"},
		{"two images of one transaction", []step{{head(-1, nil, 0, k, 2*k, k), "ab"}}, "[4096 a 4096 o 4096 b]"},
		{"an image longer than the file", []step{{head(-1, nil, 3*k, 10), "a"}}, "[12288 o 10 a]"},
		{"a patch", []step{{head(-1, nil, 0, 2*k), "a"}, {patch(512, 512, k+1024, 1024), "bc"}}, "[512 a 512 b 4096 a 1024 c 2048 a 4096 o]"},
		{"a patch over a patch", []step{{head(-1, nil, 0, k), "a"}, {patch(512, 1024), "b"}, {patch(1024, 1024), "c"}}, "[512 a 512 b 1024 c 2048 a 8192 o]"},
		{"a patch within a patch", []step{{head(-1, nil, 0, k), "a"}, {patch(100, 1000), "b"}, {patch(300, 7), "c"}}, "[100 a 200 b 7 c 793 b 2996 a 8192 o]"},
		{"a patch over several", []step{{patch(10, 10, 30, 10, 50, 10), "bcd"}, {patch(15, 40), "e"}, {patch(55, 5), "f"}}, "[10 o 5 b 40 e 5 f 12228 o]"},
		{"a patch, then an image", []step{{head(-1, nil, 0, k), "a"}, {patch(512, 512), "b"}, {head(-1, nil, 0, 600), "c"}}, "[600 c 11688 o]"},
		{"a patch without an image", []step{{patch(k, 512), "b"}}, "[4096 o 512 b 7680 o]"},
		{"a patch, then freed", []step{{head(-1, nil, 0, k), "a"}, {patch(512, 512), "b"}, {head(-1, []Range{{0, k}}), ""}}, "[12288 o]"},
		{"a patch, then cut", []step{{head(-1, nil, 0, k), "a"}, {patch(512, 1536), "b"}, {head(600, nil), ""}, {head(k, nil), ""}}, "[512 a 88 b 3496 o]"},
		{"empty", []step{{head(-1, nil, 0, k), "a"}, {head(0, nil), ""}}, "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			p := l.file(rootSpot, "f", 'o', 3*k)
			for _, s := range c.steps {
				s.head.ID, s.head.Path = p.id, p.path
				l.put(s.head, s.letters)
			}
			l.stop()
			view, err := Load(l.config(l.m))
			ok(t, err)
			if got := letters(readAll(t, l.wrap(view, p))); got != c.want {
				t.Errorf("view shows %s, want %s", got, c.want)
			}
			view.Close()
			l.replay()
			l.want(l.m, p, c.want)
			if res := l.replay(); res != (Result{}) {
				t.Errorf("a second replay did %+v", res)
			}
		})
	}
}

// The mtime of the last transaction that has one stands, after everything else; the atime is not touched.
func TestTimes(t *testing.T) {
	l := newLab(t)
	now := int64(1e18)
	l.m.SetClock(func() int64 { now += 1e9; return now })
	p, q := l.file(rootSpot, "f", 'o', 3*block), l.file(rootSpot, "g", 'o', block)
	h := p.images(0, block)
	h.Timed, h.Mtime = true, unix.Timespec{Sec: 5, Nsec: 6}
	l.put(h, "a")
	h.Mtime.Sec, h.Length = 7, block
	l.put(h, "b")
	l.put(p.images(), "")
	l.put(q.images(0, block), "a")
	l.stop()
	before := l.stat(l.m, p)
	if res := l.replay(); res.Files != 2 || res.Log.Transactions != 4 || res.Written != 2*block || !l.has(event.Repaired) {
		t.Errorf("%+v", res)
	}
	st := l.stat(l.m, p)
	if st.Mtim != (unix.Timespec{Sec: 7, Nsec: 6}) || st.Atim != before.Atim {
		t.Errorf("mtime %v, atime %v; it was %v", st.Mtim, st.Atim, before.Atim)
	}
}

// A path that does not lead to the file any more: it is found wherever it is, and nothing is written to what stands in its place.
func TestStalePath(t *testing.T) {
	for name, move := range map[string]func(l *lab, dir, p spot) spot{
		"renamed": func(l *lab, dir, p spot) spot { return l.rename(p, dir, names.File, "other") },
		"moved":   func(l *lab, _, p spot) spot { return l.rename(p, rootSpot, names.File, "f") },
		"directory renamed": func(l *lab, dir, p spot) spot {
			d := l.rename(dir, rootSpot, names.Dir, "e")
			return d.child(p.id, p.path[1])
		},
		"directory moved down": func(l *lab, dir, p spot) spot {
			d := l.rename(dir, l.mkdir(l.mkdir(rootSpot, "x"), "y"), names.Dir, "d")
			return d.child(p.id, p.path[1])
		},
		"something else in its place": func(l *lab, dir, p spot) spot {
			to := l.rename(p, rootSpot, names.File, "f")
			ok(l.t, l.in(l.m, dir.path).Symlink("x", p.path[1]))
			return to
		},
		"a directory in its place": func(l *lab, dir, p spot) spot {
			to := l.rename(p, rootSpot, names.File, "f")
			ok(l.t, l.in(l.m, dir.path).Mkdir(p.path[1], 0o700))
			return to
		},
		"still there": func(_ *lab, _, p spot) spot { return p },
		"long name": func(l *lab, dir, p spot) spot {
			return l.rename(p, dir, names.File, fmt.Sprintf("%0200d", 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			dir := l.mkdir(rootSpot, "d")
			p, other := l.file(dir, "f", 'o', block), l.file(dir, "g", 'o', block)
			l.put(p.images(0, block), "a")
			at := move(l, dir, p)
			l.stop()
			if res := l.replay(); res.Files != 1 || res.Unlinked != 0 {
				t.Errorf("%+v", res)
			}
			l.want(l.m, at, "[4096 a]")
			if name[0] != 'd' {
				l.want(l.m, other, "[4096 o]")
			}
		})
	}
	// A path is a hint, even where it leads to another file: the name says whose it is.
	l := newLab(t)
	p, other := l.file(rootSpot, "f", 'o', block), l.file(rootSpot, "g", 'o', block)
	h := p.images(0, block)
	h.Path = other.path
	l.put(h, "a")
	h = other.images(0, block)
	h.ID, h.Path = keys.RandomObjectID(), other.path
	l.put(h, "b")
	l.stop()
	if res := l.replay(); res.Files != 1 || res.Unlinked != 1 {
		t.Errorf("%+v", res)
	}
	l.want(l.m, p, "[4096 a]")
	l.want(l.m, other, "[4096 o]")
}

// A file at the end of a deep tree is found, by its path and by a walk, with few directories open.
func TestDeepTree(t *testing.T) {
	const levels, most = 500, 100
	for _, stale := range []bool{false, true} {
		l := newLab(t)
		dir := rootSpot
		for range levels {
			dir = l.mkdir(dir, "d")
		}
		p := l.file(dir, "f", 'o', block)
		l.put(p.images(0, block), "a")
		if stale {
			p = l.rename(p, dir, names.File, "g")
		}
		l.stop()
		l.m = l.m.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
		if res := l.replay(); res.Files != 1 || res.Unlinked != 0 {
			t.Errorf("stale %v: %+v", stale, res)
		}
		if _, n := l.m.Handles(); n > most {
			t.Errorf("stale %v: %d objects were open at once, want no more than %d", stale, n, most)
		}
		l.want(l.m, p, "[4096 a]")
	}
}

// A file without a name is not written to, though somebody could still reach it.
func TestUnlinked(t *testing.T) {
	l := newLab(t)
	p, q, never := l.file(rootSpot, "f", 'o', block), l.file(rootSpot, "g", 'o', block), spot{id: keys.RandomObjectID()}
	l.put(p.images(0, block), "a")
	l.put(q.images(0, block), "b")
	l.put(never.images(0, block), "c")
	l.put(Head{ID: keys.RandomObjectID(), Length: -1}, "") // of which nothing is left to do
	f, err := l.m.Root().Open(p.path[0], disk.ReadWrite)
	ok(t, err)
	ok(t, l.m.Root().Unlink(p.path[0]))
	l.stop()
	if res := l.replay(); res.Files != 1 || res.Unlinked != 2 || res.Written != block {
		t.Errorf("%+v", res)
	}
	l.want(l.m, q, "[4096 b]")
	if got := letters(readAll(t, f)); got != "[4096 o]" {
		t.Errorf("the unlinked file holds %s", got)
	}
}

// A directory that cannot be read may hold the file: nothing is concluded and nothing written. Where every file is at its path nobody has to look.
func TestUnreadableDirectory(t *testing.T) {
	for _, op := range []string{"list", "open"} {
		l := newLab(t)
		dir := l.mkdir(rootSpot, "d")
		p, q := l.file(rootSpot, "f", 'o', block), l.file(rootSpot, "g", 'o', block)
		l.put(q.images(0, block), "b")
		l.put(p.images(0, block), "a")
		to := l.rename(p, dir, names.File, "f")
		l.stop()
		pieces := len(l.pieces(l.m))
		l.m.Record()
		traced := map[string]bool{}
		l.m.SetFault(func(c disktest.Call) error {
			traced[c.Op] = true
			if c.Op == op && (c.Name == dir.path[0]) {
				return syscall.EIO
			}
			return nil
		})
		_, err := Replay(l.config(l.m))
		if !l.m.Struck() {
			t.Fatalf("no such call among %v", traced)
		}
		wantErr(t, err, ErrIncomplete)
		wantErr(t, err, syscall.EIO)
		l.m.SetFault(nil)
		if l.want(l.m, q, "[4096 o]"); len(l.pieces(l.m)) != pieces {
			t.Error("pieces were removed")
		}
		if res := l.replay(); res.Files != 2 {
			t.Errorf("%+v", res)
		}
		l.want(l.m, to, "[4096 a]")
	}
	l := newLab(t)
	dir, p := l.mkdir(rootSpot, "d"), l.file(rootSpot, "f", 'o', block)
	l.put(p.images(0, block), "a")
	l.stop()
	l.m.SetFault(func(c disktest.Call) error {
		if c.Name == dir.path[0] {
			return syscall.EIO
		}
		return nil
	})
	l.replay()
	l.want(l.m, p, "[4096 a]")
}

// logBlock logs the first block of a file as "a", with its path or without, and ends the journal.
func (l *lab) logBlock(p spot, byPath bool) {
	h := p.images(0, block)
	if !byPath {
		h.Path = nil
	}
	l.put(h, "a")
	l.stop()
}

// Two host files of one id: that at the path, else any one, and an event says so; a hard link is no second file.
func TestTwoObjects(t *testing.T) {
	for _, byPath := range []bool{true, false} {
		l := newLab(t)
		p := l.file(rootSpot, "f", 'o', block)
		host := l.name(rootSpot, names.File, p.id, "copy")
		f, err := l.m.Root().Create(host, 0o600)
		ok(t, err)
		_, err = f.WriteAt([]byte("copy"), 0)
		ok(t, err)
		l.logBlock(p, byPath)
		if res := l.replay(); res.Files != 1 || l.has(event.Duplicate) == byPath {
			t.Errorf("by path %v: %+v, events %v", byPath, res, l.events)
		}
		if byPath {
			l.want(l.m, p, "[4096 a]")
		}
	}
	l := newLab(t) // the last path counts
	p := l.file(rootSpot, "f", 'o', block)
	h := p.images(0, block)
	h.Path = []string{l.name(rootSpot, names.File, p.id, "copy")}
	f, err := l.m.Root().Create(h.Path[0], 0o600)
	ok(t, err)
	f.Close()
	l.put(h, "a")
	l.put(p.images(), "")
	l.stop()
	l.replay()
	l.want(l.m, p, "[4096 a]")

	l = newLab(t)
	p = l.file(rootSpot, "f", 'o', block)
	ok(t, l.m.Root().Link(p.path[0], l.m.Root(), l.name(rootSpot, names.File, p.id, "link")))
	h = p.images(0, block)
	h.Path = nil
	l.put(h, "a")
	l.stop()
	if l.replay(); l.has(event.Duplicate) {
		t.Error("a hard link is taken for another file")
	}
	l.want(l.m, p, "[4096 a]")
}

// header is a whole header of an object.
func header(id keys.ObjectID) []byte {
	b := make([]byte, block)
	copy(b, "COFFERC1")
	copy(b[56:], id[:])
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// TestSwappedLink: of a file with two names another one stands under that at the path. The file is written to under the other one.
func TestSwappedLink(t *testing.T) {
	for _, byPath := range []bool{true, false} {
		for _, link := range []string{"a", "z"} { // in any order
			l := newLab(t)
			root := l.m.Root()
			p := l.file(rootSpot, "f", 'o', block)
			q := rootSpot.child(p.id, l.name(rootSpot, names.File, p.id, link))
			ok(t, root.Rename(p.path[0], root, q.path[0], 0))
			f, err := root.Create(p.path[0], 0o600)
			ok(t, err)
			foreign := header(keys.ObjectID{9})
			_, err = f.WriteAt(foreign, 0)
			ok(t, err)
			l.logBlock(p, byPath)
			l.replay()
			l.want(l.m, q, "[4096 a]")
			if readAll(t, f) != string(foreign) || l.has(event.Damage) {
				t.Errorf("by path %v: the other file was written to, or taken for the one: %v", byPath, l.events)
			}
			f.Close()
		}
	}
}

// TestSwapped: the files of two names were swapped on the host. Neither gets what the journal has of the other; one that cannot be told is written to.
func TestSwapped(t *testing.T) {
	for _, torn := range []bool{false, true} {
		l := newLab(t)
		p, other := l.file(rootSpot, "f", 'o', block), keys.ObjectID{9}
		f, err := l.m.Root().Open(p.path[0], disk.ReadWrite)
		ok(t, err)
		b := header(other)
		if torn {
			b[100] = 1
		}
		_, err = f.WriteAt(b, 0)
		ok(t, err)
		l.put(p.images(0, block), "a")
		l.stop()
		v, err := Load(l.config(l.m))
		ok(t, err)
		if shown := v.Wrap(p.id, f) != f; shown != torn {
			t.Errorf("torn %v: shown %v", torn, shown)
		}
		v.Close()
		l.events = nil
		l.replay()
		got := readAll(t, f)
		if kept := got == string(b); kept == torn || l.has(event.Damage) == torn {
			t.Errorf("torn %v: kept %v, events %v", torn, kept, l.events)
		}
		f.Close()
	}
}

// lose makes a log of three synced transactions of p whose middle one the host forgets.
func (l *lab) lose(p spot) {
	for i, letter := range []string{"a", "b", "c"} {
		l.put(p.images(int64(i)*block, block), letter)
		ok(l.t, l.j.Sync(l.j.End()))
	}
	l.stop()
	name := l.pieces(l.m)[0]
	f, err := l.in(l.m, []string{cofferDir}).Open(name, disk.ReadWrite)
	ok(l.t, err)
	b := []byte(readAll(l.t, f))
	for i := range b[:len(b)-block] { // a run of the letter b
		if b[i] == 'b' && b[i+block-1] == 'b' {
			_, err = f.WriteAt([]byte{'x'}, int64(i))
			ok(l.t, err)
			ok(l.t, f.Sync())
			return
		}
	}
	l.t.Fatal("no such bulk")
}

// A journal that proves a loss is not written to the files.
func TestLost(t *testing.T) {
	l := newLab(t)
	p := l.file(rootSpot, "f", 'o', 3*block)
	l.lose(p)
	l.m.Record()
	_, err := Replay(l.config(l.m))
	wantErr(t, err, ErrLost)
	l.want(l.m, p, "[12288 o]")
	if len(l.pieces(l.m)) == 0 {
		t.Error("pieces were removed")
	}
	view, err := Load(l.config(l.m))
	ok(t, err)
	defer view.Close()
	if view.Damage() == nil {
		t.Error("not reported")
	}
	if got := letters(readAll(t, l.wrap(view, p))); got != "[4096 a 8192 o]" {
		t.Errorf("view shows %s", got)
	}
}

// The last transaction is torn and nothing says that it was durable: those before it stand.
func TestTornTail(t *testing.T) {
	l := newLab(t)
	p := l.file(rootSpot, "f", 'o', 3*block)
	l.put(p.images(0, block), "a")
	l.put(p.images(block, block, 2*block, block), "bb")
	l.stop()
	f, err := l.in(l.m, []string{cofferDir}).Open(l.pieces(l.m)[0], disk.ReadWrite)
	ok(t, err)
	at := strings.LastIndex(readAll(t, f), "bb")
	_, err = f.WriteAt([]byte("x"), int64(at))
	ok(t, err)
	if res := l.replay(); res.Log.Transactions != 1 || !res.Log.Torn || res.Log.Lost {
		t.Errorf("%+v", res)
	}
	l.want(l.m, p, "[4096 a 8192 o]")
}

// Authentic transactions that make no sense are refused before anything is written.
func TestMalformedLog(t *testing.T) {
	for name, c := range map[string]struct {
		head []byte
		bulk int
		want error
	}{
		"kind":             {[]byte{9}, 0, ErrKind},
		"cut":              {[]byte{1, 2, 3}, 0, ErrMalformed},
		"bulk":             {(&Head{Length: -1, Images: []Range{{0, 5}}}).Append(nil), 4, ErrMalformed},
		"exchange":         {[]byte{2, 0}, 0, ErrMalformed},
		"bulk of exchange": {(&Exchange{Over: true}).Append(nil), 1, ErrMalformed},
	} {
		l := newLab(t)
		p := l.file(rootSpot, "f", 'o', block)
		l.put(p.images(0, block), "a")
		_, err := l.j.Append(journal.Entry{Head: c.head, Bulk: [][]byte{make([]byte, c.bulk)}})
		ok(t, err)
		l.stop()
		if _, err := Replay(l.config(l.m)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Load(l.config(l.m)); !errors.Is(err, c.want) {
			t.Errorf("%s: load: %v", name, err)
		}
		l.want(l.m, p, "[4096 o]")
		if len(l.pieces(l.m)) == 0 {
			t.Errorf("%s: pieces were removed", name)
		}
	}
}

// A vault without a journal, or with one of another session only, is left alone.
func TestNothingToReplay(t *testing.T) {
	l := newLab(t)
	p := l.file(rootSpot, "f", 'o', block)
	l.m.Record()
	c := l.config(l.m)
	for pass := range 2 {
		res, err := Replay(c)
		view, verr := Load(c)
		if err != nil || verr != nil || res != (Result{}) || view != nil || l.m.Ops() != 0 {
			t.Fatalf("%+v, %v, %v, %d operations", res, err, verr, l.m.Ops())
		}
		if f := l.wrap(view, p); readAll(t, f) != l.read(l.m, p) {
			t.Fatal("a nil view")
		}
		view.Close()
		var st unix.Stat_t
		view.Stat(p.id, &st)
		if pass == 0 {
			l.put(p.images(0, block), "a")
			l.stop()
			l.m.Record()
			c.Journal.ID[0]++
		}
	}
	l.want(l.m, p, "[4096 o]")
}

// wrap opens a file through a view, for reading as a read-only mount does.
func (l *lab) wrap(v *View, p spot) disk.File {
	l.t.Helper()
	n := len(p.path) - 1
	f, err := l.in(l.m, p.path[:n]).Open(p.path[n], disk.ReadOnly)
	ok(l.t, err)
	return v.Wrap(p.id, f)
}
