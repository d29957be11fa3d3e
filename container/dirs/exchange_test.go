package dirs

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
	"golang.org/x/sys/unix"
)

// swapVault is a tree on a disk in memory with a/f, a/<long>, b/deep/g, b/deep/<long> and the directory b/deep/sub, and a journal for intents.
type swapVault struct {
	*Tree
	t       *testing.T
	m       *disktest.Memory
	j       *journal.Journal
	a, deep *Dir
	trace   []string
	events  []event.Event
}

func journalOf(t *testing.T, m *disktest.Memory) journal.Config {
	t.Helper()
	d, err := m.Root().OpenDir(configDir)
	ok(t, err)
	mac := func() hash.Hash { return hmac.New(sha256.New, make([]byte, 32)) }
	return journal.Config{Dir: d, MAC: mac, ID: [16]byte{5}}
}

func treeOn(t *testing.T, m *disktest.Memory, set ...func(*Config)) *Tree {
	t.Helper()
	var seq uint64
	c := Config{Root: m.Root(), RootID: testRoot, Codec: testCodec, Geometry: 9, NextSeq: func() (uint64, error) { seq++; return seq, nil }}
	for _, f := range set {
		f(&c)
	}
	tree, err := New(c)
	ok(t, err)
	return tree
}

func newSwapVault(t *testing.T) *swapVault {
	v := &swapVault{t: t, m: disktest.NewMemory()}
	ok(t, v.m.Root().Mkdir(configDir, 0o700))
	var err error
	v.j, err = journal.New(journalOf(t, v.m))
	ok(t, err)
	v.Tree = treeOn(t, v.m, func(c *Config) {
		c.Events = func(e event.Event) { v.events = append(v.events, e) }
		c.Intend = func(b []byte) (func(error), error) {
			lsn, err := v.j.Append(journal.Entry{Head: b})
			if err == nil {
				err = v.j.Sync(lsn)
			}
			v.trace = append(v.trace, "intend")
			over := func(err error) {
				if err != nil {
					return
				}
				v.trace = append(v.trace, "done")
				b, err := redo.Over(b)
				ok(t, err)
				_, err = v.j.Append(journal.Entry{Head: b})
				ok(t, err)
			}
			return over, err
		}
	})
	v.a = v.mkdir(v.Root(), "a")
	v.deep = v.mkdir(v.mkdir(v.Root(), "b"), "deep")
	v.mkdir(v.deep, "sub")
	for _, c := range []struct {
		d    *Dir
		name string
	}{{v.a, "f"}, {v.a, longName}, {v.deep, "g"}, {v.deep, longName}} {
		f, _, err := c.d.CreateFile(c.name, 0o600, -1, -1)
		ok(t, err)
		f.Close()
	}
	_, err = v.j.Append(journal.Entry{Head: (&redo.Head{Length: -1}).Append(nil)}) // makes the first piece
	ok(t, err)
	ok(t, v.m.Root().SyncAll())
	return v
}

func (v *swapVault) mkdir(d *Dir, name string) *Dir {
	v.t.Helper()
	e, err := d.Mkdir(name, 0o700, -1, -1)
	ok(v.t, err)
	sub, err := d.Child(name, e.ID)
	ok(v.t, err)
	return sub
}

// listing answers all plain names of a disk with their ids.
func listing(t *testing.T, tree *Tree) string {
	t.Helper()
	var out []string
	var walk func(d *Dir, path string)
	walk = func(d *Dir, path string) {
		all, err := d.Entries()
		ok(t, err)
		for _, e := range all {
			out = append(out, path+e.Name+" "+e.ID.String())
			if e.Type == names.Dir {
				sub, err := d.Child(e.Name, e.ID)
				ok(t, err)
				walk(sub, path+e.Name+"/")
				sub.Release()
			}
		}
	}
	walk(tree.Root(), "")
	slices.Sort(out)
	return strings.Join(out, "\n")
}

var swaps = map[string]func(v *swapVault) error{
	"files":     func(v *swapVault) error { return third(v.Rename(v.a, "f", v.deep, "g", unix.RENAME_EXCHANGE)) },
	"one place": func(v *swapVault) error { return third(v.Rename(v.deep, "sub", v.deep, "g", unix.RENAME_EXCHANGE)) },
	"long": func(v *swapVault) error {
		return third(v.Rename(v.a, longName, v.deep, longName, unix.RENAME_EXCHANGE))
	},
	"directory": func(v *swapVault) error { return third(v.Rename(v.a, longName, v.deep, "sub", unix.RENAME_EXCHANGE)) },
}

// A power cut at any point of an exchange, and of the replay after it: both names carry what they did, or both are exchanged. With done it is.
func TestExchangeCut(t *testing.T) {
	for name, swap := range swaps {
		t.Run(name, func(t *testing.T) {
			v := newSwapVault(t)
			old := listing(t, v.Tree)
			v.m.Record()
			ok(t, swap(v))
			done := v.m.Ops()
			now := listing(t, v.Tree)
			if got := strings.Join(v.trace, " "); got != "intend done" || len(v.events) > 0 || now == old {
				t.Fatalf("calls %s, events %v", got, v.events)
			}
			for k := range done + 1 {
				for _, l := range disktest.PowerCuts() {
					for seed := range uint64(2) {
						m := v.m.CutAt(k, l, rand.New(rand.NewPCG(seed, uint64(k))))
						_, err := redo.Replay(redo.Config{Root: m.Root(), RootID: testRoot, Names: testCodec, Journal: journalOf(t, m)})
						ok(t, err)
						var events []event.Event
						got := listing(t, treeOn(t, m, func(c *Config) { c.Events = func(e event.Event) { events = append(events, e) } }))
						if got != now && (got != old || k == done) {
							t.Fatalf("cut after %d of %d operations, %v, seed %d: tree\n%s\nwas\n%s", k, done, l, seed, got, old)
						}
						for _, e := range events {
							if e.Kind != event.Foreign { // sidecars of names that were not made or have gone
								t.Fatalf("cut after %d of %d operations, %v: %+v", k, done, l, e)
							}
						}
					}
				}
			}
		})
	}
}

// The intent comes before the first rename and after the sidecars and the old names are durable; it ends after both directories are.
func TestIntendOrder(t *testing.T) {
	v := newSwapVault(t)
	v.m.SetTrace(func(op, name string, _ int64, _ int) {
		switch {
		case strings.HasPrefix(name, "journal."), op == "stat", op == "open", op == "read":
		default:
			v.trace = append(v.trace, op)
		}
	})
	ok(t, swaps["long"](v))
	const sidecar = "create, write, fsync, fsync, "
	if got, want := strings.Join(v.trace, ", "), sidecar+sidecar+"fsync, fsync, intend, rename, rename, rename, unlink, unlink, fsync, fsync, done"; got != want {
		t.Errorf("calls are %s\nwant %s", got, want)
	}
}

// What the intent says: steps by the sealed names of the directories, from the root.
func TestIntent(t *testing.T) {
	v := newSwapVault(t)
	var x *redo.Exchange
	v.cfg.Intend = func(b []byte) (func(error), error) {
		var err error
		x, err = redo.ParseExchange(b)
		ok(t, err)
		return func(error) {}, nil
	}
	ok(t, swaps["files"](v))
	open := func(path []string, name string) string {
		var s []string
		id := testRoot
		for _, host := range append(slices.Clone(path), name) {
			l, err := testCodec.Open(id, host)
			ok(t, err)
			s, id = append(s, l.Name), l.ID
		}
		return strings.Join(s, "/")
	}
	aside := fmt.Sprintf("b/deep/.coffer-exchange-%016x", x.ID)
	want := []string{"b/deep/g -> " + aside, "a/f -> b/deep/g", aside + " -> a/f"}
	for i, s := range x.Steps {
		if got := open(s.From, s.Old) + " -> " + open(s.To, s.New); got != want[i] {
			t.Errorf("step %d is %s, want %s", i, got, want[i])
		}
	}
}

// An intent that cannot be made durable: nothing has happened.
func TestIntendFails(t *testing.T) {
	v := newSwapVault(t)
	old, root := listing(t, v.Tree), hostNames(t, v.m)
	refusal := errors.New("no room")
	v.cfg.Intend = func([]byte) (func(error), error) { return nil, refusal }
	if err := swaps["long"](v); !errors.Is(err, refusal) {
		t.Fatal(err)
	}
	if got := listing(t, v.Tree); got != old || hostNames(t, v.m) != root {
		t.Errorf("tree\n%s\nwas\n%s", got, old)
	}
}

// A host call fails: the exchange is undone and over, or stays to be finished; replay agrees with the maps.
func TestExchangeFault(t *testing.T) {
	for n := 0; ; n++ {
		v := newSwapVault(t)
		v.m.SetFault(func(c disktest.Call) error {
			if c.N == n && !strings.HasPrefix(c.Name, "journal.") {
				return syscall.EIO
			}
			return nil
		})
		err := swaps["long"](v)
		struck, calls := v.m.Struck(), v.m.Calls()
		v.m.SetFault(nil)
		want := listing(t, v.Tree)
		ok(t, v.j.Sync(v.j.End()))
		_, rerr := redo.Replay(redo.Config{Root: v.m.Root(), RootID: testRoot, Names: testCodec, Journal: journalOf(t, v.m)})
		ok(t, rerr)
		if got := listing(t, treeOn(t, v.m)); got != want {
			t.Fatalf("call %d fails, answer %v: tree after the replay\n%s\nwant\n%s", n, err, got, want)
		}
		if n >= calls {
			if struck || n < 15 {
				t.Fatalf("%d calls", n)
			}
			return
		}
	}
}

func hostNames(t *testing.T, m *disktest.Memory) string {
	var all []string
	var walk func(d disk.Dir, path string)
	walk = func(d disk.Dir, path string) {
		ok(t, d.List(func(name string, _ uint64, typ uint8) error {
			all = append(all, path+name)
			if typ == unix.DT_DIR {
				sub, err := d.OpenDir(name)
				ok(t, err)
				defer sub.Close()
				walk(sub, path+name+"/")
			}
			return nil
		}))
	}
	walk(m.Root(), "")
	return strings.Join(all, "\n")
}
