package bulk

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// TestImportSourceChanges changes a file while it is read: it is told and does not show, the others do, and the next import has it.
func TestImportSourceChanges(t *testing.T) {
	noLeaks(t)
	base, mk := newDisk(t)
	for _, c := range []struct {
		name   string
		change func(path string) error
		gone   bool
	}{
		{"cut", func(path string) error { return os.Truncate(path, 200_000) }, false},
		{"longer", func(path string) error { return os.Truncate(path, 2_000_000) }, false},
		{"touched", func(path string) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: 5}, {Sec: 5}}, 0)
		}, false},
		{"replaced", func(path string) error { // the old one is read to its end
			return errors.Join(os.WriteFile(path+".new", []byte("another"), 0o600), os.Rename(path+".new", path))
		}, false},
		{"removed", os.Remove, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := base.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1)))
			dir, files := sourceTree(t)
			large := filepath.Join(dir, "d/large")
			o, err := openDisk(m, mk)
			if err != nil {
				t.Fatal(err)
			}
			changed := false
			m.SetTrace(func(op, name string, off int64, n int) {
				if op == "write" && off > 700_000 && strings.HasSuffix(name, partSuffix) && !changed {
					changed = true
					if err := c.change(large); err != nil {
						t.Error(err)
					}
				}
			})
			var told []string
			err = o.importer(func(path string, err error) { told = append(told, path+": "+err.Error()) }).Run(context.Background(), o.tree.Root(), []Source{{Path: dir}})
			m.SetTrace(nil)
			if err != nil || !changed {
				t.Fatalf("changed: %v; %v", changed, err)
			}
			whole := c.name == "replaced" || c.name == "removed" // what was open stayed as it was
			if !whole {
				if len(told) != 1 || !strings.HasPrefix(told[0], large+": the file changed while it was read") {
					t.Errorf("told %q", told)
				}
				if _, err := plain.Walk(o.view.Root(), "d/large", false); !errors.Is(err, unix.ENOENT) {
					t.Errorf("it shows: %v", err)
				}
				delete(files, "d/large")
			} else if len(told) != 0 {
				t.Errorf("told %q", told)
			}
			if err := o.check(files, true); err != nil {
				t.Error(err)
			}
			if err := o.close(true); err != nil {
				t.Fatal(err)
			}
			if now, err := os.ReadFile(large); err == nil {
				files["d/large"] = now
			} else if !c.gone || !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if c.gone {
				delete(files, "d/large") // it stays in the vault
			}
			again, err := openDisk(m, mk)
			if err != nil {
				t.Fatal(err)
			}
			i := again.importer(func(path string, err error) { t.Error(path, err) })
			if err := i.Run(context.Background(), again.tree.Root(), []Source{{Path: dir}}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(again.check(files, true), again.close(true)); err != nil {
				t.Error(err)
			}
			if i.Summary().Reused != 0 {
				t.Errorf("it went on with a file that changed: %+v", i.Summary())
			}
		})
	}
}
