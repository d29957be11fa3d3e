package check

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// repair runs Repair on the vault, which is not open.
func (r *rig) repair(dry bool) (sum Summary, kept int, done []Action) {
	r.t.Helper()
	r.open(dry)
	defer r.close()
	sum, kept, done, err := r.repairOpen(dry)
	r.must(err)
	return sum, kept, done
}

func (r *rig) repairOpen(dry bool) (sum Summary, kept int, done []Action, err error) {
	var all []Finding
	cfg := RepairConfig{Config: r.config(&all), Done: func(a Action) { done = append(done, a) }}
	if !dry {
		cfg.Tree = r.tree
	}
	sum, kept, err = Repair(context.Background(), cfg)
	return sum, kept, done, err
}

func (r *rig) contentNow() map[string]string {
	r.t.Helper()
	r.open(true)
	defer r.close()
	return r.content()
}

// worse says what could be read before and cannot now.
func worse(before, after map[string]string) (bad []string) {
	for k, v := range before {
		if got, ok := after[k]; !ok || got != v {
			bad = append(bad, k)
		}
	}
	slices.Sort(bad)
	return bad
}

// TestRepair damages one thing each, and says what becomes of it.
func TestRepair(t *testing.T) {
	id := "object"
	tests := []struct {
		name   string
		damage func(r *rig)
		want   string // the actions
		file   string // what is looked at afterwards
		good   func(b []byte) []byte
		from   string // what it was before, where it has moved
	}{
		{"frame", func(r *rig) { flip(r, "docs/tree", 8192+5) }, "rebuilt docs/tree [0-4096]", "docs/tree", zeroed(0, 4096), ""},
		{"record", func(r *rig) { flip(r, "docs/tree", 4096+512+130) }, "rebuilt docs/tree [16384-32768]", "docs/tree", zeroed(16384, 32768), ""},
		{"tree in the header", func(r *rig) { flip(r, "docs/tree", 520) }, "rebuilt docs/tree", "docs/tree", nil, ""},
		{"header of a tree", func(r *rig) { wipe(r, "docs/tree", 0, 4096) }, "rebuilt docs/tree", "docs/tree", nil, ""},
		{"header of a single segment", func(r *rig) { flip(r, "single", 3000) }, "rebuilt single", "single", nil, ""},
		{"header of inline data", func(r *rig) { flip(r, "inline", 100) }, "rebuilt inline", "inline", nil, ""},
		{"all of a header", func(r *rig) { wipe(r, "single", 0, 4096) }, "kept single [0-9000]", "", nil, ""},
		{"emptied", func(r *rig) { r.must(os.Truncate(r.host("single"), 0)) }, "kept single", "", nil, ""},
		{"cut", func(r *rig) { r.must(os.Truncate(r.host("docs/tree"), 100_000)) }, "rebuilt docs/tree [90112-200000]", "docs/tree", zeroed(90112, 200_000), ""},
		{"longer", func(r *rig) { r.must(os.Truncate(r.host("single"), 100_000)) }, "rebuilt single", "single", nil, ""},
		{"two names", func(r *rig) {
			flip(r, "twin", 4096+4096+5)
		}, "rebuilt twin [0-4096]", "twin", zeroed(0, 4096), ""},
		{"moved", func(r *rig) {
			from := r.host("single")
			r.must(os.Rename(from, filepath.Join(r.host("docs"), filepath.Base(from))))
		}, "moved docs -> lost+found/single", "lost+found/single", nil, "single"},
		{"directory moved", func(r *rig) {
			from := r.host("docs/deep")
			r.must(os.Rename(from, filepath.Join(r.path, filepath.Base(from))))
		}, "moved  -> lost+found/deep", "lost+found/deep/" + long, nil, "docs/deep/" + long},
		{"renamed", func(r *rig) { rename(r, "single") }, "moved  -> lost+found/ID", "lost+found/" + id, nil, "single"},
		{"directory renamed", func(r *rig) { rename(r, "docs/deep") }, "kept docs\nmoved docs -> lost+found/ID", "", nil, ""},
		{"sidecar lost", func(r *rig) { r.must(os.Remove(names.SidecarName(r.host("docs/deep/" + long)))) }, "moved docs/deep -> lost+found/ID", "lost+found/" + id, nil, "docs/deep/" + long},
		{"swapped", func(r *rig) { swap(r, "single", "inline") }, "copied inline -> lost+found/ID\ncopied single -> lost+found/ID", "", nil, ""},
		{"older copy", func(r *rig) { twice(r, "single", "copy") }, "rebuilt single", "copy", nil, "single"},
		{"foreign", func(r *rig) { r.copy(r.host("single"), r.host("single")+" (conflicted copy)") }, "", "single", nil, ""},
		{"target", func(r *rig) {
			p := r.host("link")
			target, err := os.Readlink(p)
			r.must(err)
			r.must(os.Remove(p))
			r.must(os.Symlink(target[1:], p))
		}, "kept link", "", nil, ""},
		{"header of a long symlink", func(r *rig) { flip(r, "longlink", 100) }, "rebuilt longlink", "longlink", nil, ""},
		{"target of a long symlink", func(r *rig) { flip(r, "longlink", 600) }, "kept longlink [0-3500]", "", nil, ""},
		{"symlink twice", func(r *rig) {
			e, err := r.tree.Root().Lookup("link")
			r.must(err)
			target, err := os.Readlink(r.host("link"))
			r.must(err)
			host, _ := names.New(r.v.Ring().Names()).Seal(r.v.Config().VaultID.Root(), names.Link{Type: e.Type, ID: e.ID, Seq: e.Seq + 1000, Name: "other"})
			r.must(os.Symlink(target, filepath.Join(r.path, host)))
		}, "rebuilt link", "", nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.fill()
			r.open(false)
			r.longLink("longlink")
			r.put("twin", pattern(9, 10000))
			e, err := r.tree.Root().Lookup("twin")
			r.must(err)
			_, err = r.dir("again", true).Link("twin", r.tree.Root(), "twin", e.ID, true)
			r.must(err)
			r.close()
			whole := r.contentNow()
			r.open(true)
			test.damage(r)
			r.close()
			before := r.contentNow()
			hostBefore := snapshot(r)

			_, dryKept, dry := r.repair(true)
			if after := snapshot(r); after != hostBefore {
				t.Fatalf("a dry run changed the host:\n%s\n%s", hostBefore, after)
			}
			_, kept, done := r.repair(false)
			t.Log(actions(done))
			if a, b := actions(dry), actions(done); a != b || dryKept != kept {
				t.Errorf("a dry run promised\n%s, and it became\n%s", a, b)
			}
			after := r.contentNow()
			if bad := worse(before, after); len(bad) > 0 {
				t.Errorf("worse than before: %q", bad)
			}
			if test.want != "" || test.name == "foreign" {
				// Which of two names is met first, the host decides.
				if got := strings.ReplaceAll(actions(done), "again/twin", "twin"); !matches(got, test.want) {
					t.Errorf("actions:\n%s\nwant\n%s", got, test.want)
				}
			}
			if !bytes.Equal(joined(after, "twin"), joined(after, "again/twin")) {
				t.Error("the two names of a file have different contents")
			}
			sum, kept2, again := r.repair(false)
			for _, a := range again {
				if a.Result != Kept {
					t.Errorf("a second run does something: %+v", a)
				}
			}
			if kept == 0 && (sum.Damage > 0 || kept2 > 0) {
				t.Errorf("damage is left: %+v", sum)
			}
			if test.file == "" {
				return
			}
			from := test.from
			if from == "" {
				from = test.file
			}
			want := joined(whole, from)
			if test.good != nil {
				want = test.good(want)
			}
			path := test.file
			if strings.HasSuffix(path, id) {
				for _, a := range done {
					path = a.To
				}
			}
			if got := joined(after, path); !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, want %d; first difference at %d", path, len(got), len(want), firstDifference(got, want))
			}
		})
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// joined is the content of a file from that of its frames.
func joined(content map[string]string, path string) []byte {
	var out []byte
	for off := 0; ; off += 4096 {
		frame, ok := content[fmt.Sprintf("%s:%d", path, off)]
		if !ok {
			return out
		}
		out = append(out, frame...)
	}
}

func zeroed(from, to int) func(b []byte) []byte {
	return func(b []byte) []byte { b = bytes.Clone(b); clear(b[from:to]); return b }
}

func wipe(r *rig, path string, from, to int) {
	r.change(r.host(path), func(b []byte) []byte { clear(b[from:to]); return b })
}

// rename changes a letter of a host name, so that it opens nowhere.
func rename(r *rig, path string) {
	from := r.host(path)
	b := []byte(filepath.Base(from))
	b[20] = map[bool]byte{true: 'B', false: 'A'}[b[20] == 'A']
	r.must(os.Rename(from, filepath.Join(filepath.Dir(from), string(b))))
}

// actions are the lines of what was done; ids are ID.
func actions(done []Action) string {
	var out []string
	for _, a := range done {
		s := fmt.Sprintf("%s %s", a.Result, a.Path)
		if a.To != "" {
			s += " -> " + a.To
		}
		for _, l := range a.Lost {
			s += fmt.Sprintf(" [%d-%d]", l.From, l.To)
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// matches compares actions; ID stands for an object id and what follows it.
func matches(got, want string) bool {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	if len(g) != len(w) {
		return false
	}
	for i := range g {
		if stem, ok := strings.CutSuffix(w[i], "ID"); ok {
			if !strings.HasPrefix(g[i], stem) || len(g[i]) < len(stem)+32 {
				return false
			}
		} else if g[i] != w[i] {
			return false
		}
	}
	return true
}

// snapshot is all of the host below the vault, but for what opening it changes.
func snapshot(r *rig) string {
	var b strings.Builder
	r.walkHost(func(path string) {
		data, err := os.ReadFile(path)
		r.must(err)
		var st unix.Stat_t
		r.must(unix.Lstat(path, &st))
		fmt.Fprintf(&b, "%s %d %d %d %x\n", path, st.Ino, st.Size, st.Ctim.Nano(), data[:min(len(data), 100)])
	})
	return b.String()
}

// TestRepairKeepsAttributes of a file that is rebuilt.
func TestRepairKeepsAttributes(t *testing.T) {
	r := newRig(t)
	r.fill()
	r.open(false)
	root := r.tree.Root()
	e, err := root.Lookup("single")
	r.must(err)
	codec := xattrs.New(r.v.Ring().Xattr())
	set := func(x disk.Xattrs) error {
		o := xattrs.Object{ID: e.ID}
		if err := codec.Set(x, o, "user.a", []byte("value"), 0); err != nil {
			return err
		}
		return codec.SetMode(x, o, 0o444)
	}
	if err := root.Xattrs("single", e.ID, true, set); err != nil {
		r.close()
		t.Skipf("the host has no extended attributes: %v", err)
	}
	r.must(root.Chmod("single", e.ID, 0o654))
	r.must(root.Utimes("single", e.ID, &[2]unix.Timespec{{Sec: 1000, Nsec: 1}, {Sec: 2000, Nsec: 2}}))
	flip(r, "single", 8192+3)
	r.must(root.Utimes("single", e.ID, &[2]unix.Timespec{{Sec: 1000, Nsec: 1}, {Sec: 2000, Nsec: 2}}))
	r.close()
	if _, kept, done := r.repair(false); kept != 0 || len(done) != 1 {
		t.Fatalf("%+v", done)
	}
	r.open(true)
	defer r.close()
	e, err = r.tree.Root().Lookup("single")
	r.must(err)
	var st unix.Stat_t
	r.must(r.tree.Root().Stat("single", e.ID, &st))
	if st.Mode&0o7777 != 0o654 || st.Mtim.Sec != 2000 || st.Mtim.Nsec != 2 {
		t.Errorf("mode %o, mtime %v", st.Mode, st.Mtim)
	}
	r.must(r.tree.Root().Xattrs("single", e.ID, false, func(x disk.Xattrs) error {
		o := xattrs.Object{ID: e.ID}
		v, err := codec.Get(x, o, "user.a")
		mode, isSet, merr := codec.Mode(x, o)
		if err != nil || string(v) != "value" || merr != nil || !isSet || mode != 0o444 {
			t.Errorf("%q %v, %o %v %v", v, err, mode, isSet, merr)
		}
		return nil
	}))
}

// TestRepairLostState: where the state is lost any file may lack its header, and a mount shows one as empty. A repair saves what is below a header that rotted.
func TestRepairLostState(t *testing.T) {
	r := newRig(t)
	r.fill()
	whole := r.contentNow()
	r.open(true)
	wipe(r, "docs/tree", 0, 4096)
	wipe(r, "single", 0, 4096)
	single := r.host("single")
	left, err := os.ReadFile(single)
	r.must(err)
	r.close()
	r.must(os.Remove(filepath.Join(r.path, configDir, "state")))
	sum, _ := r.verify()
	if sum.Damage != 0 || sum.Leftover != 2 {
		t.Errorf("%+v", sum)
	}
	_, kept, done := r.repair(false)
	if got := actions(done); kept != 0 || got != "rebuilt docs/tree" {
		t.Errorf("%d kept: %s", kept, got)
	}
	after := r.contentNow()
	if got, want := joined(after, "docs/tree"), joined(whole, "docs/tree"); !bytes.Equal(got, want) {
		t.Errorf("the file differs at %d", firstDifference(got, want))
	}
	if now, err := os.ReadFile(single); err != nil || !bytes.Equal(now, left) {
		t.Errorf("a file of which nothing opens was changed: %v", err)
	}
}
