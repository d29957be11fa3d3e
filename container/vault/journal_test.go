package vault

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// memOpen opens a vault of memVault.
func memOpen(m *disktest.Memory, o OpenOptions) (*Vault, error) {
	cfg, err := ReadConfigDir(m.Root())
	if err != nil {
		return nil, err
	}
	mk, err := cfg.Unlock(testPass)
	if err != nil {
		return nil, err
	}
	defer mk.Destroy()
	return OpenDir(m.Root(), cfg, mk, o)
}

func mustOpen(t *testing.T, m *disktest.Memory, o OpenOptions) *Vault {
	t.Helper()
	v, err := memOpen(m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.CloseUnclean() })
	return v
}

// journaled begins a session that leaves a file of 4096 "o" and a journal that makes them "j".
func journaled(t *testing.T, m *disktest.Memory) (v *Vault, j *journal.Journal, host string, id keys.ObjectID) {
	t.Helper()
	v = mustOpen(t, m, OpenOptions{})
	id = keys.RandomObjectID()
	host, _ = names.New(v.Ring().Names()).Seal(v.Ring().VaultID.Root(), names.Link{Type: names.File, Geometry: 9, ID: id, Seq: next(t, v), Name: "f"})
	f, err := v.Root().Create(host, 0o600)
	if err == nil {
		_, err = f.WriteAt(bytes.Repeat([]byte("o"), 4096), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if j, err = journal.New(v.Journal()); err != nil {
		t.Fatal(err)
	}
	h := redo.Head{ID: id, Path: []string{host}, Length: 4096, Timed: true, Mtime: unix.Timespec{Sec: 11}, Images: []redo.Range{{Off: 0, Len: 4096}}}
	lsn, err := j.Append(journal.Entry{Head: h.Append(nil), Bulk: [][]byte{bytes.Repeat([]byte("j"), 4096)}})
	if err == nil {
		err = j.Sync(lsn)
	}
	if err == nil {
		err = v.Root().SyncAll()
	}
	if err != nil {
		t.Fatal(err)
	}
	return v, j, host, id
}

func first(t *testing.T, f disk.File, err error) byte {
	t.Helper()
	b := make([]byte, 4097)
	if err == nil {
		_, err = f.ReadAt(b, 0)
	}
	if !errors.Is(err, io.EOF) || bytes.Count(b[:4096], b[:1]) != 4096 {
		t.Fatalf("%v, a mixture", err)
	}
	return b[0]
}

func pieces(t *testing.T, m *disktest.Memory) int {
	t.Helper()
	d, err := m.Root().OpenDir(cofferDir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := journal.Names(d)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A session has a journal id that the state names before anything is in the journal; the next session replays it and has another.
func TestJournalReplayed(t *testing.T) {
	m, _ := memVault(t)
	v, _, host, _ := journaled(t, m)
	old := v.Journal().ID
	if old == [16]byte{} || v.Journal().Vault != [16]byte(v.Config().VaultID) {
		t.Fatal("no journal id")
	}
	m = m.Cut(disktest.LoseAll, rand.New(rand.NewPCG(1, 1)))

	m.Record()
	var log eventLog
	v = mustOpen(t, m, OpenOptions{ReadOnly: true, Events: log.sink})
	f, err := v.Root().Open(host, disk.ReadOnly)
	if got := first(t, f, err); got != 'o' {
		t.Errorf("host file holds %c", got)
	}
	l, err := names.New(v.Ring().Names()).Open(v.Ring().VaultID.Root(), host)
	if err != nil {
		t.Fatal(err)
	}
	if got := first(t, v.View().Wrap(l.ID, f), nil); got != 'j' {
		t.Errorf("view shows %c", got)
	}
	closeVault(t, v)
	if m.Ops() != 0 || pieces(t, m) == 0 || !log.has(event.Info) {
		t.Errorf("opening for reading made %d changes, %d pieces", m.Ops(), pieces(t, m))
	}

	v = mustOpen(t, m, OpenOptions{Events: log.sink})
	if v.View() != nil || v.Journal().ID == old || v.Journal().ID == [16]byte{} || pieces(t, m) != 0 || !log.has(event.Repaired) {
		t.Errorf("view %v, id %x, %d pieces", v.View(), v.Journal().ID, pieces(t, m))
	}
	f, err = v.Root().Open(host, disk.ReadOnly)
	if got := first(t, f, err); got != 'j' {
		t.Errorf("host file holds %c after the replay", got)
	}
	if !v.Unclean() {
		t.Error("the session that was replayed counts as clean")
	}
	closeVault(t, v)
	if s := v.state.cur; s.journal != [16]byte{} || !s.clean {
		t.Errorf("clean %v, journal %x after a clean end", s.clean, s.journal)
	}
}

// A session whose journal was not removed stays open.
func TestJournalLeft(t *testing.T) {
	m, _ := memVault(t)
	v, j, host, _ := journaled(t, m)
	wantErr(t, v.Close(), ErrJournal)
	v = mustOpen(t, m, OpenOptions{})
	f, err := v.Root().Open(host, disk.ReadOnly)
	if got := first(t, f, err); got != 'j' || !v.Unclean() {
		t.Errorf("host file holds %c", got)
	}
	_ = j.Close(false)
	closeVault(t, v)

	v, j, _, _ = journaled(t, m)
	if err := j.Close(true); err != nil {
		t.Fatal(err)
	}
	closeVault(t, v)
	v = mustOpen(t, m, OpenOptions{})
	if len(*v.state.unclean.Load()) != 1 { // the first
		t.Errorf("unclean sessions %v", *v.state.unclean.Load())
	}
	closeVault(t, v)
}

// A cut at any point of an opening that replays, and of the session after: the journal is replayed, or was.
func TestJournalCut(t *testing.T) {
	m, _ := memVault(t)
	_, _, host, _ := journaled(t, m)
	m = m.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
	m.Record()
	v := mustOpen(t, m, OpenOptions{})
	closeVault(t, v)
	if m.Ops() < 15 {
		t.Fatalf("only %d operations", m.Ops())
	}
	for k := range m.Ops() + 1 {
		for _, l := range append(disktest.PowerCuts(), disktest.Killed) {
			c := m.CutAt(k, l, rand.New(rand.NewPCG(uint64(k), 1)))
			v, err := memOpen(c, OpenOptions{ForceUnlock: true}) // a torn note looks like another host's
			if err != nil {
				t.Fatalf("cut after %d operations, %v: %v", k, l, err)
			}
			f, err := v.Root().Open(host, disk.ReadOnly)
			if got := first(t, f, err); got != 'j' || pieces(t, c) > 0 {
				t.Fatalf("cut after %d operations, %v: host file holds %c, %d pieces", k, l, got, pieces(t, c))
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A journal whose state is lost, or the slot of it that named it, is replayed by who salvages, through any cut, and by nobody else.
func TestJournalUnnamed(t *testing.T) {
	for _, lost := range []string{"file", "slot"} {
		m, _ := memVault(t)
		v, _, host, _ := journaled(t, m)
		newer := int64(v.state.slot) * slotSize
		seq := next(t, v)
		m = m.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
		d, err := m.Root().OpenDir(cofferDir)
		if err == nil && lost == "file" {
			err = d.Unlink(stateName)
		} else if err == nil {
			var f disk.File
			if f, err = d.Open(stateName, disk.ReadWrite); err == nil {
				_, err = f.WriteAt([]byte{0xff}, newer+20)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		m = m.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
		if _, err := memOpen(m, OpenOptions{}); !errors.Is(err, ErrUnnamed) || pieces(t, m) == 0 {
			t.Fatalf("lost %s: %v, %d pieces", lost, err, pieces(t, m))
		}
		m = m.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
		m.Record()
		v = mustOpen(t, m, OpenOptions{Salvage: true, ForceUnlock: true})
		closeVault(t, v)
		for k := range m.Ops() + 1 {
			for _, l := range append(disktest.PowerCuts(), disktest.Killed) {
				c := m.CutAt(k, l, rand.New(rand.NewPCG(uint64(k), 1)))
				v, err := memOpen(c, OpenOptions{Salvage: true, ForceUnlock: true})
				if err != nil {
					t.Fatalf("lost %s, cut after %d operations, %v: %v", lost, k, l, err)
				}
				f, err := v.Root().Open(host, disk.ReadOnly)
				if got := first(t, f, err); got != 'j' || pieces(t, c) > 0 || !v.UncleanSeq(seq-1) {
					t.Fatalf("lost %s, cut after %d operations, %v: host file holds %c, %d pieces, unclean %v", lost, k, l, got, pieces(t, c), v.UncleanSeq(seq-1))
				}
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// Pieces that the state does not name are left alone, by those who read and those who write.
func TestJournalOfAnother(t *testing.T) {
	m, _ := memVault(t)
	closeVault(t, mustOpen(t, m, OpenOptions{}))
	v, _, host, _ := journaled(t, m)
	d, err := m.Root().OpenDir(cofferDir)
	if err != nil {
		t.Fatal(err)
	}
	// The state of a clean end under the pieces of a session that had none.
	if err := v.state.end(); err != nil {
		t.Fatal(err)
	}
	_ = v.CloseUnclean()
	n := pieces(t, m)
	for _, readOnly := range []bool{true, false} {
		var log eventLog
		v := mustOpen(t, m, OpenOptions{ReadOnly: readOnly, Events: log.sink})
		f, err := v.Root().Open(host, disk.ReadOnly)
		if got := first(t, f, err); got != 'o' || v.View() != nil || pieces(t, m) != n || !log.has(event.Info) {
			t.Errorf("host file holds %c, %d pieces", got, pieces(t, m))
		}
		closeVault(t, v) // which they do not keep from ending cleanly
	}
	if v := mustOpen(t, m, OpenOptions{}); v.Unclean() {
		t.Error("pieces of another journal keep a session open")
	}
	d.Close()
}

// InSession is exact: what was seen is not taken for drawn.
func TestInSession(t *testing.T) {
	path, _ := newVault(t)
	v := open(t, path, OpenOptions{})
	before := next(t, v)
	closeVault(t, v)
	v = open(t, path, OpenOptions{})
	drawn := map[uint64]bool{}
	highest := before
	for i := range 40 {
		if i%3 == 1 {
			v.SawSeq(highest + uint64(i%5))
			v.SawSeq(highest + uint64(i%7))
		}
		highest = next(t, v)
		drawn[highest] = true
	}
	for seq := range highest + 10 {
		if v.InSession(seq) != drawn[seq] {
			t.Errorf("sequence %d: %v", seq, v.InSession(seq))
		}
	}
	closeVault(t, v)
	if v = open(t, path, OpenOptions{ReadOnly: true}); v.InSession(highest) {
		t.Error("a session that reads draws nothing")
	}
}

// A journal that lost something: who only reads is told, who salvages asks, and nobody else writes.
func TestJournalDamaged(t *testing.T) {
	m, _ := memVault(t)
	journaled(t, m)
	m = m.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
	dir, err := m.Root().OpenDir(cofferDir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := dir.Open("journal.0000", disk.ReadWrite)
	if err == nil {
		err = errors.Join(f.Truncate(5000), f.Close(), m.Root().SyncAll())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, salvage := range []bool{false, true} {
		var log eventLog
		v := mustOpen(t, m, OpenOptions{ReadOnly: true, ForceUnlock: true, Salvage: salvage, Events: log.sink})
		if log.has(event.Damage) == salvage || v.JournalDamage() == nil {
			t.Errorf("salvage %v: told %v, damage %v", salvage, log.has(event.Damage), v.JournalDamage())
		}
		closeVault(t, v)
	}
	_, err = memOpen(m, OpenOptions{ForceUnlock: true})
	wantErr(t, err, redo.ErrLost)
	v := mustOpen(t, m, OpenOptions{ForceUnlock: true, Salvage: true})
	if v.JournalDamage() == nil || pieces(t, m) != 0 {
		t.Errorf("damage %v, %d pieces", v.JournalDamage(), pieces(t, m))
	}
	closeVault(t, v)
}
