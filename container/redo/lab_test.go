package redo

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

const cofferDir = ".coffer"

var testRoot = keys.ObjectID{0: 0xAA, 15: 1}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRNG(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 11)) }

// lab is a vault in memory with a journal that is written by hand.
type lab struct {
	t      testing.TB
	m      *disktest.Memory
	j      *journal.Journal
	seq    uint64
	events []event.Event
}

func testMAC() hash.Hash { return hmac.New(sha256.New, bytes.Repeat([]byte{7}, 32)) }

var testCodec = names.New(make([]byte, 64))

func newLab(t testing.TB) *lab {
	l := &lab{t: t, m: disktest.NewMemory()}
	ok(t, l.m.Root().Mkdir(cofferDir, 0o700))
	ok(t, l.m.Root().SyncAll())
	j, err := journal.New(l.config(l.m).Journal)
	ok(t, err)
	l.j = j
	return l
}

// config is that of a replay on m, which may be a cut of the lab's disk.
func (l *lab) config(m *disktest.Memory) Config {
	root := m.Root()
	d, err := root.OpenDir(cofferDir)
	ok(l.t, err)
	sink := func(e event.Event) { l.events = append(l.events, e) }
	return Config{
		Root: root, RootID: testRoot, Names: testCodec, Events: sink,
		Journal: journal.Config{Dir: d, MAC: testMAC, Vault: [16]byte(testRoot), ID: [16]byte{1, 2, 3}, Events: sink},
	}
}

func (l *lab) has(kind event.Kind) bool {
	return slices.ContainsFunc(l.events, func(e event.Event) bool { return e.Kind == kind })
}

// spot is an object of the vault.
type spot struct {
	id   keys.ObjectID
	path []string
}

var rootSpot = spot{id: testRoot}

// in opens the directory of a path.
func (l *lab) in(m *disktest.Memory, path []string) disk.Dir {
	l.t.Helper()
	d := m.Root()
	for _, name := range path {
		var err error
		d, err = d.OpenDir(name)
		ok(l.t, err)
	}
	return d
}

// name seals a fresh name for an object.
func (l *lab) name(parent spot, typ names.Type, id keys.ObjectID, plain string) string {
	l.seq++
	link := names.Link{Type: typ, ID: id, Seq: l.seq, Name: plain}
	if typ == names.File {
		link.Geometry = 9
	}
	host, sidecar := testCodec.Seal(parent.id, link)
	if sidecar != nil {
		f, err := l.in(l.m, parent.path).Create(names.SidecarName(host), 0o600)
		ok(l.t, err)
		_, err = f.WriteAt(sidecar, 0)
		ok(l.t, err)
	}
	return host
}

func (p spot) child(id keys.ObjectID, host string) spot {
	return spot{id, append(slices.Clone(p.path), host)}
}

func (l *lab) mkdir(parent spot, plain string) spot {
	l.t.Helper()
	id := keys.RandomObjectID()
	host := l.name(parent, names.Dir, id, plain)
	ok(l.t, l.in(l.m, parent.path).Mkdir(host, 0o700))
	return parent.child(id, host)
}

// file makes a container of n bytes, each the given letter.
func (l *lab) file(parent spot, plain string, letter byte, n int) spot {
	l.t.Helper()
	id := keys.RandomObjectID()
	host := l.name(parent, names.File, id, plain)
	f, err := l.in(l.m, parent.path).Create(host, 0o600)
	ok(l.t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{letter}, n), 0)
	ok(l.t, err)
	return parent.child(id, host)
}

// rename gives an object a fresh name.
func (l *lab) rename(p, parent spot, typ names.Type, plain string) spot {
	l.t.Helper()
	host := l.name(parent, typ, p.id, plain)
	n := len(p.path) - 1
	ok(l.t, l.in(l.m, p.path[:n]).Rename(p.path[n], l.in(l.m, parent.path), host, 0))
	return parent.child(p.id, host)
}

// put appends a transaction whose images are of one letter each.
func (l *lab) put(h Head, letters string) {
	l.t.Helper()
	var bulk [][]byte
	for i, r := range append(slices.Clone(h.Images), h.Patches...) {
		bulk = append(bulk, bytes.Repeat([]byte{letters[i]}, int(r.Len)))
	}
	_, err := l.j.Append(journal.Entry{Head: h.Append(nil), Bulk: bulk})
	ok(l.t, err)
}

// images is a head of p with images at pairs of offset and length; the length of the file stays.
func (p spot) images(pairs ...int64) Head {
	h := Head{ID: p.id, Path: p.path, Length: -1}
	for i := 0; i < len(pairs); i += 2 {
		h.Images = append(h.Images, Range{pairs[i], pairs[i+1]})
	}
	return h
}

// stop syncs the journal and leaves it as a crash does; all else is stable as well.
func (l *lab) stop() {
	l.t.Helper()
	ok(l.t, l.j.Sync(l.j.End()))
	ok(l.t, l.j.Close(false))
	ok(l.t, l.m.Root().SyncAll())
}

func (l *lab) read(m *disktest.Memory, p spot) string {
	l.t.Helper()
	n := len(p.path) - 1
	f, err := l.in(m, p.path[:n]).Open(p.path[n], disk.ReadOnly)
	ok(l.t, err)
	defer f.Close()
	return readAll(l.t, f)
}

func readAll(t testing.TB, f disk.File) string {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	ok(t, err)
	return string(b)
}

// letters writes a file in short: runs of a letter, "4096a 100b".
func letters(s string) string {
	var out []string
	for i := 0; i < len(s); {
		n := i
		for n < len(s) && s[n] == s[i] {
			n++
		}
		c := s[i : i+1]
		if c == "\x00" {
			c = "0"
		}
		out = append(out, fmt.Sprintf("%d %s", n-i, c))
		i = n
	}
	return fmt.Sprint(out)
}

func (l *lab) want(m *disktest.Memory, p spot, want string) {
	l.t.Helper()
	if got := letters(l.read(m, p)); got != want {
		l.t.Errorf("file holds %s, want %s", got, want)
	}
}

func (l *lab) replay() Result {
	l.t.Helper()
	res, err := Replay(l.config(l.m))
	ok(l.t, err)
	if left := l.pieces(l.m); len(left) > 0 {
		l.t.Errorf("pieces %v are left", left)
	}
	return res
}

func (l *lab) pieces(m *disktest.Memory) []string {
	l.t.Helper()
	all, err := journal.Names(l.in(m, []string{cofferDir}))
	ok(l.t, err)
	return all
}

func (l *lab) stat(m *disktest.Memory, p spot) (st unix.Stat_t) {
	l.t.Helper()
	n := len(p.path) - 1
	ok(l.t, l.in(m, p.path[:n]).Stat(p.path[n], &st))
	return st
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// diskRoot is a directory of the host with a .coffer in it.
func diskRoot(t testing.TB) disk.Dir {
	t.Helper()
	root, err := disk.OpenRoot(t.TempDir())
	ok(t, err)
	ok(t, root.Mkdir(cofferDir, 0o700))
	t.Cleanup(func() { root.Close() })
	return root
}

func diskConfig(t testing.TB, root disk.Dir) Config {
	t.Helper()
	d, err := root.OpenDir(cofferDir)
	ok(t, err)
	t.Cleanup(func() { d.Close() })
	return Config{Root: root, RootID: testRoot, Names: testCodec, Journal: journal.Config{Dir: d, MAC: testMAC, ID: [16]byte{1}}}
}
