package dirs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/container/names"
	"golang.org/x/sys/unix"
)

// A directory in which damage hides what is left can be removed, and replaced by a rename. Its own objects go with it, those of another
// directory move up, and foreign ones and contents that nobody can see keep it.
func TestRemoveAroundHidden(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(v *vault, sub *Dir, moved string)
		refuse bool
		up     bool // an object shows up in the host's root
	}{
		"long name without sidecar": {do: func(v *vault, sub *Dir, _ string) {
			ok(v.t, os.Remove(names.SidecarName(v.put(sub, fileLink(longName, 9, 0)))))
		}},
		"directory for a sidecar": {do: func(v *vault, sub *Dir, _ string) {
			p := names.SidecarName(v.put(sub, fileLink(longName, 9, 0)))
			ok(v.t, os.Remove(p))
			ok(v.t, os.Mkdir(p, 0o700))
		}},
		"file becomes fifo": {do: func(v *vault, sub *Dir, _ string) {
			p := v.put(sub, fileLink("f", 9, 0))
			ok(v.t, os.Remove(p))
			ok(v.t, unix.Mkfifo(p, 0o600))
		}},
		"file becomes a directory with contents": {do: func(v *vault, sub *Dir, _ string) {
			p := v.put(sub, fileLink("f", 9, 0))
			ok(v.t, os.Remove(p))
			ok(v.t, os.MkdirAll(filepath.Join(p, "x"), 0o700))
		}, refuse: true},
		"moved here": {do: func(v *vault, sub *Dir, moved string) {
			ok(v.t, os.Rename(moved, filepath.Join(v.hostDir(sub), filepath.Base(moved))))
		}, up: true},
		"foreign": {do: func(v *vault, sub *Dir, moved string) {
			ok(v.t, os.WriteFile(filepath.Join(v.hostDir(sub), "README.txt"), nil, 0o600))
			ok(v.t, os.Remove(names.SidecarName(v.put(sub, fileLink(longName, 9, 0)))))
		}, refuse: true},
	} {
		for how, remove := range map[string]func(v *vault) error{
			"rmdir":  func(v *vault) error { return second(v.Root().Rmdir("sub")) },
			"rename": func(v *vault) error { _, _, err := v.Rename(v.Root(), "new", v.Root(), "sub", 0); return err },
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				v := newVault(t)
				v.t = t
				other := v.mkdir(v.Root(), "other")
				v.mkdir(other, "inner")
				moved := v.hostPath(other, "inner")
				sub := v.mkdir(v.Root(), "sub")
				v.mkdir(v.Root(), "new")
				c.do(v, sub, moved)
				v.mount()
				if got := list(t, v.dir("sub")); got != "" {
					t.Fatalf("shows %q", got)
				}
				before := hostCount(t, v.path)
				var st unix.Stat_t
				ok(t, v.Root().StatSelf(&st))
				links := st.Nlink
				err := remove(v)
				if c.refuse {
					fails(t, err, unix.ENOTEMPTY)
					if n := hostCount(t, v.path); n != before {
						t.Errorf("%d host objects after a refusal, %d before", n, before)
					}
					return
				}
				ok(t, err)
				if _, err := os.Stat(filepath.Join(v.path, filepath.Base(moved))); (err == nil) != c.up {
					t.Errorf("moved up: %v", err)
				}
				ok(t, v.Root().StatSelf(&st))
				if st.Nlink != links-1 {
					t.Errorf("%d links of the root, %d before", st.Nlink, links)
				}
				v.mount()
				if want := map[string]string{"rmdir": "new other", "rename": "other sub"}[how]; list(t, v.Root()) != want {
					t.Errorf("shows %q, want %q", list(t, v.Root()), want)
				}
			})
		}
	}
}
