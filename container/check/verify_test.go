package check

import (
	"context"
	"errors"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

func TestVerifyGoodVault(t *testing.T) {
	r := newRig(t)
	r.fill()
	sum, all := r.verify()
	want := Summary{Directories: 3, Objects: 10, Bytes: 900 + 9000 + 200_000 + 5000 + 73728} // the last frame that sparse stores is whole
	if len(all) > 0 || sum != want {
		t.Errorf("%+v, want %+v\n%s", sum, want, lines(all))
	}
}

// TestVerifyFindings: one damage each, and the line that names it.
func TestVerifyFindings(t *testing.T) {
	tests := []struct {
		name   string
		damage func(r *rig)
		want   []string // parts of the lines, in order
	}{
		{"frame", func(r *rig) { flip(r, "docs/tree", 4096+4096+5) }, []string{"damage docs/tree 0-4096/200000: authentication failed"}},
		{"header", func(r *rig) { flip(r, "single", 3000) }, []string{"damage single 0-9000/9000: container: open header"}},
		{"inline", func(r *rig) { flip(r, "inline", 600) }, []string{"damage inline 0-900/900: container: open header"}},
		{"meta block", func(r *rig) { flip(r, "docs/tree", 4100) }, []string{"damage docs/tree 0-131072/200000: container: read meta block 0: pin"}},
		{"cut", func(r *rig) { r.must(os.Truncate(r.host("single"), 9000)) },
			[]string{"damage single 0-9000/9000: truncated", "damage single: host length 9000"}},
		{"longer", func(r *rig) { r.must(os.Truncate(r.host("single"), 50000)) }, []string{"damage single: host length 50000, size 9000 wants"}},
		{"zeroed", func(r *rig) { r.change(r.host("single"), func(b []byte) []byte { return make([]byte, len(b)) }) },
			[]string{"damage single 0-9000/9000: container: open header: no container header"}},
		{"emptied", func(r *rig) { r.must(os.Truncate(r.host("single"), 0)) }, []string{"damage single: container: open header: no container header"}},
		{"swapped", func(r *rig) { swap(r, "single", "inline") }, []string{
			"damage inline 0-9000/9000: container: open header: container of object", "damage single 0-900/900: container: open header: container of object"}},
		{"moved", func(r *rig) {
			from := r.host("single")
			r.must(os.Rename(from, filepath.Join(r.host("docs"), filepath.Base(from))))
		}, []string{"damage docs [", "not sealed in this directory"}},
		{"renamed", func(r *rig) {
			from := r.host("single")
			c := byte('A')
			if b := filepath.Base(from); b[20] == c {
				c = 'B'
			}
			b := []byte(from)
			b[len(b)-len(filepath.Base(from))+20] = c
			r.must(os.Rename(from, string(b)))
		}, []string{"damage  [", "not sealed in this directory"}},
		{"conflict copy", func(r *rig) {
			r.copy(r.host("single"), r.host("single")+" (conflicted copy 2026-01-01)")
		}, []string{"foreign  [", "a foreign object"}},
		{"sync conflict", func(r *rig) {
			r.copy(r.host("docs/tree"), r.host("docs/tree")+".sync-conflict-20260101-120000-ABCDEFG")
		}, []string{"foreign docs [", "a foreign object"}},
		{"sidecar lost", func(r *rig) { r.must(os.Remove(names.SidecarName(r.host("docs/deep/" + long)))) },
			[]string{"damage docs/deep [", "its sidecar cannot be used"}},
		{"sidecar changed", func(r *rig) {
			r.change(names.SidecarName(r.host("docs/deep/"+long)), func(b []byte) []byte { b[3] ^= 1; return b })
		}, []string{"damage docs/deep [", "its sidecar cannot be used"}},
		{"sidecar alone", func(r *rig) { r.must(os.Remove(r.host("docs/deep/" + long))) }, []string{"foreign docs/deep [", "the sidecar of a long name without its object"}},
		{"target", func(r *rig) {
			p := r.host("link")
			target, err := os.Readlink(p)
			r.must(err)
			r.must(errors.Join(os.Remove(p), os.Symlink(target[1:], p)))
		}, []string{"damage link: the target of the symlink cannot be read"}},
		{"type", func(r *rig) { p := r.host("single"); r.must(errors.Join(os.Remove(p), os.Mkdir(p, 0o700))) },
			[]string{"damage  [", "a file whose host object has mode 40000"}},
		{"older copy of a file", func(r *rig) { twice(r, "single", "copy") }, []string{"damage ", "a second file under the id of"}},
		{"loser", func(r *rig) { twice(r, "single", "single") }, []string{"leftover single: an older link"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.fill()
			r.open(true)
			test.damage(r)
			r.close()
			_, all := r.verify()
			text := lines(all)
			at := 0
			for _, want := range test.want {
				i := strings.Index(text[at:], want)
				if i < 0 {
					t.Fatalf("%q is not found:\n%s", want, text)
				}
				at += i
			}
			if len(all) == 0 || len(all) > 3 {
				t.Errorf("%d findings:\n%s", len(all), text)
			}
			for _, f := range all {
				if strings.Contains(test.name, "conflict") && !strings.Contains(f.Hint, "conflict copy") {
					t.Errorf("no hint: %+v", f)
				}
			}
		})
	}
}

func flip(r *rig, path string, at int) {
	r.change(r.host(path), func(b []byte) []byte { b[at] ^= 4; return b })
}

func swap(r *rig, a, b string) {
	pa, pb := r.host(a), r.host(b)
	r.must(os.Rename(pa, r.path+"/x"))
	r.must(os.Rename(pb, pa))
	r.must(os.Rename(r.path+"/x", pb))
}

func (r *rig) copy(from, to string) {
	r.t.Helper()
	b, err := os.ReadFile(from)
	r.must(err)
	r.must(os.WriteFile(to, b, 0o600))
}

// twice copies the host file of a name to another name with the same object id, as a tool does that brings back what a rename took away.
func twice(r *rig, path, as string) {
	e, err := r.tree.Root().Lookup(path)
	r.must(err)
	codec := names.New(r.v.Ring().Names())
	host, _ := codec.Seal(r.v.Config().VaultID.Root(), names.Link{Type: e.Type, Geometry: e.Geometry, ID: e.ID, Seq: e.Seq + 1000, Name: as})
	r.copy(r.host(path), filepath.Join(r.path, host))
}

// TestVerifyUnclean: what an unclean session may leave is named apart.
func TestVerifyUnclean(t *testing.T) {
	r := newRig(t)
	r.fill()
	r.open(false)
	h, _, err := r.tree.Root().CreateFile("new", 0o600, -1, -1)
	r.must(err)
	r.must(h.Close())
	r.putUnsynced("long", pattern(1, 9000))
	long := r.host("long")
	r.crash()
	r.must(os.Truncate(long, 50000))
	sum, all := r.verify()
	text := lines(all)
	if sum.Damage != 0 || sum.Leftover != 2 || !strings.Contains(text, "leftover long: host length 50000") ||
		!strings.Contains(text, "leftover new: a new file that an unclean session left without a header") {
		t.Errorf("%+v\n%s", sum, text)
	}
	r.open(true)
	flip(r, "long", 4096+4096+7)
	r.close()
	if sum, all := r.verify(); sum.Damage != 0 || sum.Leftover != 3 {
		t.Errorf("%+v\n%s", sum, lines(all))
	}
}

func TestVerifyAttributes(t *testing.T) {
	r := newRig(t)
	r.fill()
	r.open(false)
	codec := xattrs.New(r.v.Ring().Xattr())
	e, err := r.tree.Root().Lookup("single")
	r.must(err)
	o := xattrs.Object{ID: e.ID}
	var host string
	err = r.tree.Root().Xattrs("single", e.ID, true, func(x disk.Xattrs) error {
		host = codec.HostName(o, "user.b")
		return errors.Join(codec.Set(x, o, "user.a", []byte("1"), 0), codec.Set(x, o, "user.b", []byte("2"), 0), codec.SetMode(x, o, 0o400))
	})
	if err != nil {
		r.close()
		t.Skipf("the host has no extended attributes: %v", err)
	}
	r.close()
	if _, all := r.verify(); len(all) > 0 {
		t.Fatalf("found:\n%s", lines(all))
	}
	r.open(false)
	r.must(r.tree.Root().Xattrs("single", e.ID, true, func(x disk.Xattrs) error { return x.Setxattr(host, []byte("no sealed value at all"), 0) }))
	r.close()
	_, all := r.verify()
	if len(all) != 1 || all[0].Kind != Damage || !strings.Contains(all[0].What, host) {
		t.Errorf("found:\n%s", lines(all))
	}
}

// TestVerifyStops gives ctx's error and not the appearance of a good vault.
func TestVerifyStops(t *testing.T) {
	r := newRig(t)
	r.fill()
	r.open(true)
	defer r.close()
	var all []Finding
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, err := Verify(ctx, r.config(&all)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// However deep a tree is, a check has no more than some tens of its directories open.
func TestCheckDeep(t *testing.T) {
	const levels, most = 5000, 200
	m := disktest.NewMemory()
	r := newRigOn(t, "", m.Root)
	r.open(false)
	deep := strings.Repeat("d/", levels)
	r.put(deep+"last", pattern(1, 9000))
	r.put("d/d/d/other/file", pattern(2, 900))
	r.put("z/file", pattern(3, 900))
	r.close()
	fresh := func() *disktest.Memory {
		m := m.Cut(disktest.LoseNothing, mrand.New(mrand.NewPCG(1, 1)))
		r.root = m.Root
		return m
	}
	for name, check := range map[string]func() (Summary, []Finding){
		"verify": r.verify,
		"scrub":  func() (Summary, []Finding) { return r.scrub(false, nil) },
		"repair": func() (Summary, []Finding) {
			r.open(true)
			defer r.close()
			var all []Finding
			sum, _, err := Repair(context.Background(), RepairConfig{Config: r.config(&all)})
			r.must(err)
			return sum, all
		},
	} {
		m := fresh()
		sum, all := check()
		if len(all) > 0 || sum.Directories != levels+3 || sum.Objects != levels+5 {
			t.Errorf("%s: %+v\n%s", name, sum, lines(all[:min(len(all), 3)]))
		}
		if _, n := m.Handles(); n > most {
			t.Errorf("%s: %d objects were open at once, want no more than %d", name, n, most)
		}
	}
}
