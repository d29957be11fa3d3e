package dirs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"golang.org/x/sys/unix"
)

// plain answers the plain tree as text: paths, types and object ids.
func plain(t *testing.T, d *Dir, path string) (lines []string) {
	t.Helper()
	all, err := d.Entries()
	ok(t, err)
	for _, e := range all {
		lines = append(lines, fmt.Sprintf("%s/%s %s %s", path, e.Name, e.Type, e.ID))
		if e.Type == names.Dir {
			x, err := d.Child(e.Name, e.ID)
			ok(t, err)
			lines = append(lines, plain(t, x, path+"/"+e.Name)...)
			x.Release()
		}
	}
	if path == "" {
		slices.Sort(lines)
	}
	return lines
}

func show(t *testing.T, v *vault) string { return strings.Join(plain(t, v.Root(), ""), "\n") }

var faultCases = map[string]func(v *vault, root, a, b *Dir) error{
	"create": func(v *vault, root, a, b *Dir) error {
		f, _, err := a.CreateFile("new", 0o2751, os.Getuid(), os.Getgid())
		if err == nil {
			f.Close()
		}
		return err
	},
	"create read-only": func(v *vault, root, a, b *Dir) error {
		f, _, err := a.CreateFile("new", 0o444, -1, -1)
		if err == nil {
			f.Close()
		}
		return err
	},
	"mkdir closed": func(v *vault, root, a, b *Dir) error { return second(a.Mkdir(longName+"new", 0o055, -1, -1)) },
	"create long": func(v *vault, root, a, b *Dir) error {
		f, _, err := a.CreateFile(longName+"new", 0o600, -1, -1)
		if err == nil {
			f.Close()
		}
		return err
	},
	"mkdir":      func(v *vault, root, a, b *Dir) error { return second(a.Mkdir("new", 0o2777, -1, -1)) },
	"mkdir long": func(v *vault, root, a, b *Dir) error { return second(a.Mkdir(longName+"new", 0o777, -1, -1)) },
	"mknod":      func(v *vault, root, a, b *Dir) error { return second(a.Mknod("new", unix.S_IFIFO|0o666, 0, -1, -1)) },
	"symlink": func(v *vault, root, a, b *Dir) error {
		return second(a.Symlink("new", "x", os.Getuid(), os.Getgid()))
	},
	"symlink container": func(v *vault, root, a, b *Dir) error {
		return second(a.SymlinkContainer("new", -1, -1, func(f disk.File, id keys.ObjectID) error {
			defer f.Close()
			_, err := f.WriteAt([]byte("x"), 0)
			return err
		}))
	},
	"link": func(v *vault, root, a, b *Dir) error {
		e, _ := a.Lookup("f")
		return second(b.Link(longName+"new", a, "f", e.ID, true))
	},
	"tmpfile": func(v *vault, root, a, b *Dir) error {
		f, e, err := a.Tmpfile(0o2751, os.Getuid(), os.Getgid())
		if err == nil {
			err = second(b.LinkFile(longName+"new", f, e, false))
			f.Close()
		}
		return err
	},
	"unlink":      func(v *vault, root, a, b *Dir) error { return second(a.Unlink("f")) },
	"unlink long": func(v *vault, root, a, b *Dir) error { return second(a.Unlink(longName)) },
	"unlink with losers": func(v *vault, root, a, b *Dir) error {
		return second(a.Unlink("lost"))
	},
	"rmdir":              func(v *vault, root, a, b *Dir) error { return second(a.Rmdir("empty")) },
	"rmdir with orphan":  func(v *vault, root, a, b *Dir) error { return second(a.Rmdir("orphan")) },
	"rename":             func(v *vault, root, a, b *Dir) error { return third(v.Rename(a, "f", b, "new", 0)) },
	"rename long":        func(v *vault, root, a, b *Dir) error { return third(v.Rename(a, longName, b, longName+"2", 0)) },
	"rename over":        func(v *vault, root, a, b *Dir) error { return third(v.Rename(a, "f", b, "g", 0)) },
	"rename over long":   func(v *vault, root, a, b *Dir) error { return third(v.Rename(b, "g", a, longName, 0)) },
	"rename with losers": func(v *vault, root, a, b *Dir) error { return third(v.Rename(a, "lost", b, "new", 0)) },
	"rename over losers": func(v *vault, root, a, b *Dir) error { return third(v.Rename(b, "g", a, "lost", 0)) },
	"rename dir":         func(v *vault, root, a, b *Dir) error { return third(v.Rename(root, "a", b, "new", 0)) },
	"rename dir over":    func(v *vault, root, a, b *Dir) error { return third(v.Rename(root, "b", a, "empty", 0)) },
	"rename over orphan": func(v *vault, root, a, b *Dir) error { return third(v.Rename(root, "b", a, "orphan", 0)) },
	"exchange":           func(v *vault, root, a, b *Dir) error { return third(v.Rename(a, "f", b, "g", unix.RENAME_EXCHANGE)) },
	"exchange dir, file": func(v *vault, root, a, b *Dir) error { return third(v.Rename(root, "a", b, "g", unix.RENAME_EXCHANGE)) },
	"exchange dirs": func(v *vault, root, a, b *Dir) error {
		return third(v.Rename(root, "a", b, "sub", unix.RENAME_EXCHANGE))
	},
	"exchange long": func(v *vault, root, a, b *Dir) error {
		return third(v.Rename(a, longName, b, longName, unix.RENAME_EXCHANGE))
	},
	"exchange one long": func(v *vault, root, a, b *Dir) error {
		return third(v.Rename(a, longName, b, "g", unix.RENAME_EXCHANGE))
	},
	"exchange with loser": func(v *vault, root, a, b *Dir) error { return third(v.Rename(a, "lost", b, "g", unix.RENAME_EXCHANGE)) },
}

func faultVault(t *testing.T) (v *vault, f *faults, root, a, b *Dir) {
	f = &faults{}
	v = newVault(t, func(c *Config) { c.Seal = testAttrs })
	root = v.Root()
	a, b = v.mkdir(root, "a"), v.mkdir(root, "b")
	v.create(a, "f")
	v.create(b, "g")
	v.create(a, longName)
	v.create(b, longName)
	v.mkdir(b, "sub")
	v.mkdir(a, "empty")
	o := v.mkdir(a, "orphan")
	host, sidecar := testCodec.Seal(o.ID(), fileLink(longName, 1, 0))
	ok(t, os.WriteFile(filepath.Join(v.hostDir(o), names.SidecarName(host)), sidecar, 0o600))
	for seq := uint64(30); seq <= 50; seq += 10 {
		v.put(a, fileLink("lost", seq, 0))
	}
	v.seq.Store(1000)
	v.mount()
	v.Tree.root.fd = faultDir{v.cfg.Root, f}
	root, a, b = v.Root(), v.dir("a"), v.dir("b")
	return v, f, root, a, b
}

// asWas replaces each object id by the path that the object had in the old tree, so that runs compare.
func asWas(old, now string) string {
	path := make(map[string]string)
	for _, line := range strings.Split(old, "\n") {
		at := strings.LastIndexByte(line, ' ')
		if _, known := path[line[at:]]; !known {
			path[line[at:]] = line[:at]
		}
	}
	lines := strings.Split(now, "\n")
	for i, line := range lines {
		at := strings.LastIndexByte(line, ' ')
		was, known := path[line[at:]]
		if !known {
			was = "new"
		}
		lines[i] = line[:at] + " was " + was
	}
	return strings.Join(lines, "\n")
}

// TestFaults fails the n-th host call of each operation, for n = 0, 1, 2 … until one run has none left to fail.
//
// A single failure: the operation happened or it did not, as it says, and the maps agree with the host. A cut (all further calls fail): what
// the next mount finds is the old tree or the new one; with an exchange, one in which no object is missing.
func TestFaults(t *testing.T) {
	for name, op := range faultCases {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/cut=%v", name, cut), func(t *testing.T) {
				t.Parallel()
				v, _, root, a, b := faultVault(t)
				old := show(t, v)
				ok(t, op(v, root, a, b))
				r := faultRun{op: op, cut: cut, exchange: strings.HasPrefix(name, "exchange"), want: asWas(old, show(t, v)), objects: hostCount(t, v.path)}
				n := 0
				for n < 200 && r.run(t, n) {
					n++
				}
				if n == 0 || n == 200 {
					t.Errorf("%d runs", n)
				}
			})
		}
	}
}

type faultRun struct {
	op       func(v *vault, root, a, b *Dir) error
	cut      bool
	exchange bool
	want     string // the new tree
	objects  int    // host objects it takes
}

// run reports whether there was a call n to fail.
func (r faultRun) run(t *testing.T, n int) (struck bool) {
	t.Helper()
	v, f, root, a, b := faultVault(t)
	old, before := show(t, v), hostCount(t, v.path)
	f.arm(n, r.cut)
	err := r.op(v, root, a, b)
	struck = f.disarm()
	if !struck {
		ok(t, err)
	}
	live := show(t, v)
	if !r.cut {
		want := asWas(old, old)
		if err == nil {
			want = r.want
		}
		if got := asWas(old, live); got != want {
			t.Fatalf("call %d fails: answer %v, tree\n%s\nwant\n%s", n, err, got, want)
		}
		// What is left over is reported; losers may be gone.
		if got := hostCount(t, v.path); !strings.Contains(v.kinds(), string(event.Failed)) &&
			(err == nil && got != r.objects || err != nil && got > before) {
			t.Fatalf("call %d fails: answer %v, %d host objects, %d before", n, err, got, before)
		}
	}
	if r.cut {
		v.left = nil // that something half made stays is no surprise
	}
	v.mount()
	now := show(t, v)
	switch got := asWas(old, now); {
	case !r.cut && now != live:
		t.Fatalf("call %d fails: the maps say\n%s\nthe host says\n%s", n, live, now)
	case got == r.want:
	case r.cut && err == nil:
		t.Fatalf("call %d cut: answered success, but the host says\n%s", n, got)
	case r.exchange:
		sameObjects(t, old, now)
	case now != old && struck:
		t.Fatalf("call %d cut: the host says\n%s\nwant\n%s\nor the old tree", n, got, r.want)
	}
	return struck
}

func sameObjects(t *testing.T, a, b string) {
	t.Helper()
	ids := func(s string) (ids []string) {
		for _, line := range strings.Split(s, "\n") {
			ids = append(ids, line[strings.LastIndexByte(line, ' '):])
		}
		slices.Sort(ids)
		return ids
	}
	if !slices.Equal(ids(a), ids(b)) {
		t.Fatalf("objects got lost between\n%s\nand\n%s", a, b)
	}
}

// The order of host calls that crash safety rests on, where a kill of the process alone would not show it.
func TestOrderOfHostCalls(t *testing.T) {
	const sidecar = "create, write, fsync, fsync directory, "
	for name, want := range map[string]string{
		"create":             "create",
		"create long":        sidecar + "create",
		"rename":             "rename",
		"rename long":        sidecar + "rename, unlink",
		"rename over":        "rename, unlink",
		"rename over long":   sidecar + "rename, unlink, unlink",
		"rename dir over":    "rename, rmdir",
		"unlink long":        "unlink, unlink",
		"unlink with losers": "unlink, unlink, fsync directory, unlink",
		"rename with losers": "unlink, unlink, fsync directory, rename",
		"rename over losers": "unlink, unlink, fsync directory, rename, unlink",
		"rmdir with orphan":  "rmdir, unlink, rmdir",
		"rename over orphan": "unlink, rename, rmdir",
		"exchange":           "rename, rename, rename",
		"exchange long":      sidecar + sidecar + "rename, rename, rename, unlink, unlink",
	} {
		t.Run(name, func(t *testing.T) {
			v, f, root, a, b := faultVault(t)
			show(t, v) // loads all maps
			f.arm(-1, false)
			ok(t, faultCases[name](v, root, a, b))
			f.disarm()
			if got := strings.Join(f.calls, ", "); got != want {
				t.Errorf("calls are %s\nwant %s", got, want)
			}
		})
	}
}
