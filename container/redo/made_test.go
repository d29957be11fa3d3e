package redo

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// lost is a file that the host does not have, under a fresh name.
func (l *lab) lost(parent spot, plain string) spot {
	id := keys.RandomObjectID()
	return parent.child(id, l.name(parent, names.File, id, plain))
}

// made is a head that makes p, 5000 bytes.
func (p spot) made() Head {
	h := p.images(0, 4096, 4096, 904)
	h.Length, h.Timed, h.Mtime, h.Made = 5000, true, unix.Timespec{Sec: 77}, &Made{Mode: 0o640, UID: 12, GID: 34}
	return h
}

func (l *lab) end(e End) {
	l.t.Helper()
	_, err := l.j.Append(journal.Entry{Head: e.Append(nil)})
	ok(l.t, err)
}

func (l *lab) there(p spot) bool {
	l.t.Helper()
	var st unix.Stat_t
	err := l.in(l.m, p.path[:len(p.path)-1]).Stat(p.path[len(p.path)-1], &st)
	if err != nil && !gone(err) {
		l.t.Fatal(err)
	}
	return err == nil
}

// A file that the host has nowhere is made, with all that it had, and what came later is in it.
func TestMade(t *testing.T) {
	l := newLab(t)
	dir := l.mkdir(rootSpot, "dir")
	p := l.lost(dir, "file")
	l.put(p.made(), "ab")
	later := p.images(4096, 4096)
	later.Length = 8192
	l.put(later, "c")
	l.stop()
	res := l.replay()
	if res.Made != 1 || res.Files != 1 || res.Unlinked != 0 {
		t.Errorf("%+v", res)
	}
	l.want(l.m, p, "[4096 a 4096 c]")
	if st := l.stat(l.m, p); st.Mode != unix.S_IFREG|0o640 || st.Uid != 12 || st.Gid != 34 || st.Mtim.Sec != 77 {
		t.Errorf("mode %o, owner %d, group %d, mtime %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
	}
}

// One that is there, wherever, is written to and not made; mode and owner are the host's.
func TestMadeFound(t *testing.T) {
	l := newLab(t)
	p := l.file(rootSpot, "file", 'x', 10)
	l.put(p.made(), "ab")
	moved := l.rename(p, l.mkdir(rootSpot, "dir"), names.File, "moved")
	l.stop()
	if res := l.replay(); res.Made != 0 || res.Files != 1 {
		t.Errorf("%+v", res)
	}
	l.want(l.m, moved, "[4096 a 904 b]")
	if st := l.stat(l.m, moved); st.Mode != unix.S_IFREG|0o600 || l.there(p) {
		t.Errorf("mode %o", st.Mode)
	}
}

// It is made where its directory is now, under the last name that it had; not at all where the directory is gone.
func TestMadeElsewhere(t *testing.T) {
	l := newLab(t)
	dir, removed := l.mkdir(rootSpot, "dir"), l.mkdir(rootSpot, "removed")
	p, q := l.lost(dir, "file"), l.lost(removed, "file")
	l.put(p.made(), "ab")
	l.put(q.made(), "ab")
	last := p.id
	host := l.name(dir, names.File, last, "other")
	l.put(Head{ID: last, Path: dir.child(last, host).path, Length: -1}, "")
	dir = l.rename(dir, rootSpot, names.Dir, "moved")
	ok(t, l.m.Root().Rmdir(removed.path[0]))
	l.stop()
	if res := l.replay(); res.Made != 1 || res.Unlinked != 1 {
		t.Errorf("%+v", res)
	}
	l.want(l.m, dir.child(last, host), "[4096 a 904 b]")
}

// What stands in its place stays.
func TestMadeTaken(t *testing.T) {
	l := newLab(t)
	p := l.lost(rootSpot, "file")
	ok(t, l.m.Root().Mkdir(p.path[0], 0o700))
	l.put(p.made(), "ab")
	l.stop()
	if res := l.replay(); res.Made != 0 || !l.has(event.Damage) {
		t.Errorf("%+v", res)
	}
}

// A file that was removed goes, with its name; under an older name it stays, with what it had. One whose make ended is not made any more.
func TestMadeEnds(t *testing.T) {
	l := newLab(t)
	p, q, ended, lost := l.file(rootSpot, "p", 'x', 10), l.file(rootSpot, "q", 'x', 10), l.lost(rootSpot, "r"), l.lost(rootSpot, "s")
	for _, f := range []spot{p, q, ended, lost} {
		l.put(f.made(), "ab")
	}
	l.end(End{ID: p.id, Removed: true, Path: p.path})
	newer := rootSpot.child(q.id, l.name(rootSpot, names.File, q.id, "newer"))
	l.put(Head{ID: q.id, Path: newer.path, Length: -1}, "")
	l.end(End{ID: q.id, Removed: true, Path: newer.path})
	l.end(End{ID: ended.id})
	l.end(End{ID: lost.id, Removed: true, Path: lost.path})
	l.stop()
	v, err := Load(l.config(l.m))
	ok(t, err)
	if got := shows(t, v, l.m); got != q.path[0] {
		t.Errorf("a view shows %s, not %s alone", got, q.path[0])
	}
	v.Close()
	if res := l.replay(); res.Made != 0 || res.Files != 1 || res.Unlinked != 3 {
		t.Errorf("%+v", res)
	}
	l.want(l.m, q, "[4096 a 904 b]")
	for _, f := range []spot{p, ended, lost} {
		if l.there(f) {
			t.Errorf("%s is there", f.path[0])
		}
	}
}

// shows lists the sealed names that a View has in the root.
func shows(t *testing.T, v *View, m *disktest.Memory) string {
	t.Helper()
	var all []string
	ok(t, v.Root(m.Root()).List(func(name string, _ uint64, _ uint8) error {
		if name != cofferDir {
			all = append(all, name)
		}
		return nil
	}))
	return strings.Join(all, " ")
}

// A View shows what a replay makes.
func TestMadeView(t *testing.T) {
	l := newLab(t)
	dir := l.mkdir(rootSpot, "dir")
	p := l.lost(dir, "file")
	l.put(p.made(), "ab")
	l.stop()
	before := l.m.Ops()
	v, err := Load(l.config(l.m))
	ok(t, err)
	defer v.Close()
	d, err := v.Root(l.m.Root()).OpenDir(dir.path[0])
	ok(t, err)
	var st unix.Stat_t
	ok(t, d.Stat(p.path[1], &st))
	v.Stat(p.id, &st)
	if st.Mode != unix.S_IFREG|0o640 || st.Size != 5000 || st.Uid != 12 || st.Mtim.Sec != 77 {
		t.Errorf("%+v", st)
	}
	f, err := d.Open(p.path[1], disk.ReadOnly)
	ok(t, err)
	f = v.Wrap(p.id, f)
	if got := letters(readAll(t, f)); got != "[4096 a 904 b]" {
		t.Error(got)
	}
	_, err = f.WriteAt([]byte{1}, 0)
	wantErr(t, err, unix.EROFS)
	if shows(t, v, l.m) != dir.path[0] || l.m.Ops() != before {
		t.Error("something else shows, or was written")
	}
}

// A file that cannot be read hides no other from a View; a replay fails for it, and loses nothing.
func TestMadeBesideUnreadable(t *testing.T) {
	for _, call := range []string{"open", "read"} {
		for _, why := range []error{unix.EIO, unix.EACCES} {
			l := newLab(t)
			p, bad := l.lost(rootSpot, "file"), l.file(rootSpot, "bad", 'x', block)
			l.put(p.made(), "ab")
			l.put(bad.made(), "cd")
			l.stop()
			l.m.SetFault(func(c disktest.Call) error {
				if c.Op == call && strings.HasSuffix(c.Name, bad.path[0]) {
					return why
				}
				return nil
			})
			v, err := Load(l.config(l.m))
			ok(t, err)
			if got := shows(t, v, l.m); !strings.Contains(got, p.path[0]) {
				t.Errorf("%s, %v: a view shows %s, not %s", call, why, got, p.path[0])
			}
			v.Close()
			if _, err := Replay(l.config(l.m)); !errors.Is(err, why) {
				t.Errorf("%s, %v: replayed, %v", call, why, err)
			}
			l.m.SetFault(nil)
			l.replay()
			l.want(l.m, p, "[4096 a 904 b]")
			l.want(l.m, bad, "[4096 c 904 d]")
		}
	}
}

// A cut anywhere in a replay that makes and removes leaves one that comes to the same.
func TestMadeCut(t *testing.T) {
	l := newLab(t)
	dir := l.mkdir(rootSpot, "dir")
	p, q := l.lost(dir, "made"), l.file(rootSpot, "removed", 'x', 10)
	l.put(p.made(), "ab")
	l.end(End{ID: q.id, Removed: true, Path: q.path})
	l.stop()
	l.m.Record()
	l.replay()
	all := l.m
	for ops := range all.Ops() + 1 {
		for _, loss := range disktest.PowerCuts() {
			l.m = all.CutAt(ops, loss, newRNG(ops))
			if len(l.pieces(l.m)) > 0 {
				l.replay()
			}
			l.want(l.m, p, "[4096 a 904 b]")
			if st := l.stat(l.m, p); st.Mode != unix.S_IFREG|0o640 || st.Uid != 12 || l.there(q) {
				t.Errorf("%v after %d operations: mode %o, owner %d, the removed file is there: %v", loss, ops, st.Mode, st.Uid, l.there(q))
			}
		}
	}
}

// Where many files were in a directory that was moved since, or removed, the vault is looked through once for them, and once for each directory.
func TestMadeManyMoved(t *testing.T) {
	l := newLab(t)
	dir, removed := l.mkdir(rootSpot, "dir"), l.mkdir(rootSpot, "removed")
	const n = 50
	for i := range n {
		for _, parent := range []spot{dir, removed} {
			l.put(l.lost(parent, string(rune('a'+i))).made(), "ab")
		}
	}
	l.rename(dir, rootSpot, names.Dir, "moved")
	ok(t, l.m.Root().Rmdir(removed.path[0]))
	l.stop()
	lists := 0
	l.m.SetTrace(func(op, _ string, _ int64, _ int) {
		if op == "list" {
			lists++
		}
	})
	res := l.replay()
	l.m.SetTrace(nil)
	if res.Made != n || res.Unlinked != n || lists > 20 {
		t.Errorf("%+v, directories are listed %d times", res, lists)
	}
}
