package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/plain"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

var passphrase = []byte("p")

// opened is a vault on a disk in memory.
type opened struct {
	v    *vault.Vault
	tree *dirs.Tree
	view *plain.View
}

func newDisk(t *testing.T) (*disktest.Memory, *keys.MasterKey) {
	t.Helper()
	m := disktest.NewMemory()
	root := m.Root()
	defer root.Close()
	if _, err := vault.CreateDir(root, vault.Options{KDF: vault.KDF{Time: 1, MemoryKiB: 8, Threads: 1}}, passphrase); err != nil {
		t.Fatal(err)
	}
	cfg, err := vault.ReadConfigDir(root)
	if err != nil {
		t.Fatal(err)
	}
	mk, err := cfg.Unlock(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mk.Destroy)
	return m.Cut(disktest.LoseAll, rand.New(rand.NewPCG(0, 0))), mk
}

func openDisk(m *disktest.Memory, mk *keys.MasterKey) (*opened, error) {
	root := m.Root()
	cfg, err := vault.ReadConfigDir(root)
	if err != nil {
		root.Close()
		return nil, err
	}
	o := &opened{}
	if o.v, err = vault.OpenDir(root, cfg, mk, vault.OpenOptions{}); err != nil {
		return nil, err
	}
	engine, err := container.NewEngine(container.EngineConfig{Ring: o.v.Ring(), Params: o.v.Params(), Workers: 1})
	if err != nil {
		return nil, err
	}
	o.tree, err = dirs.New(dirs.Config{
		Root: o.v.Root(), RootID: o.v.Config().VaultID.Root(), Codec: names.New(o.v.Ring().Names()), Geometry: o.v.GeometryID(), NextSeq: o.v.NextSeq, SawSeq: o.v.SawSeq,
	})
	o.view = &plain.View{Tree: o.tree, Engine: engine, Attrs: xattrs.New(o.v.Ring().Xattr()), UncleanTime: o.v.UncleanTime, UncleanSeq: o.v.UncleanSeq}
	return o, err
}

func (o *opened) close(clean bool) error {
	err := o.tree.Close()
	if !clean {
		return errors.Join(err, o.v.CloseUnclean())
	}
	return errors.Join(err, o.v.Close())
}

// sizes are small, so that all that an import does happens within a few hundred host calls.
var sizes = limits{checkpoint: 512 << 10, step: 256 << 10, small: 64 << 10}

func (o *opened) importer(failed func(path string, err error)) *Import {
	return &Import{View: o.view, Root: o.v.Root(), Key: o.v.Ring().State(), SyncOf: o.v.Root().SyncAll, Geometry: o.view.Engine.Geometry(), Failed: failed, sizes: sizes}
}

// sourceTree has files of all sizes that matter.
func sourceTree(t *testing.T) (dir string, files map[string][]byte) {
	t.Helper()
	dir, files = t.TempDir(), map[string][]byte{}
	rng := rand.NewChaCha8([32]byte{1})
	for name, n := range map[string]int{"a": 0, "b": 100, "d/c": 5000, "d/e": 70_000, "d/large": 1_200_000, "z": 600_000} {
		p := make([]byte, n)
		rng.Read(p)
		files[name] = p
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("b", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "z"), filepath.Join(dir, "d/hard")); err != nil {
		t.Fatal(err)
	}
	files["d/hard"] = files["z"]
	return dir, files
}

// check says what is wrong with what shows: every file must be whole, and with all every file must be there.
func (o *opened) check(files map[string][]byte, all bool) error {
	for name, want := range files {
		n, err := plain.Walk(o.view.Root(), name, false)
		if errors.Is(err, unix.ENOENT) && !all {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f, err := n.Open()
		n.Release()
		if err != nil {
			return fmt.Errorf("%s shows and does not open: %w", name, err)
		}
		got := make([]byte, f.Size())
		_, err = f.ReadAt(got, 0)
		_ = f.Close()
		if len(got) > 0 && err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s shows with %d bytes, which are not its %d: %v", name, len(got), len(want), err)
		}
	}
	return nil
}

// again opens a disk that something happened to, checks it, imports to the end, and answers what that did.
func again(m *disktest.Memory, mk *keys.MasterKey, dir string, files map[string][]byte, change func(*Import)) (s Summary, err error) {
	o, err := openDisk(m, mk)
	if err != nil {
		return s, err
	}
	if err := o.check(files, false); err != nil {
		return s, err
	}
	var failed error
	i := o.importer(func(path string, err error) { failed = errors.Join(failed, fmt.Errorf("%s: %w", path, err)) })
	if change != nil {
		change(i)
	}
	if err := errors.Join(i.Run(context.Background(), o.tree.Root(), []Source{{Path: dir}}), failed); err != nil {
		return s, fmt.Errorf("import again: %w", err)
	}
	if err := o.check(files, true); err != nil {
		return s, fmt.Errorf("after the import: %w", err)
	}
	return i.Summary(), o.close(true)
}

// promised is how many bytes the resume points speak of that are durable on a disk.
func promised(t *testing.T, m *disktest.Memory, mk *keys.MasterKey) (sum int64) {
	t.Helper()
	o, err := openDisk(m, mk)
	if err != nil {
		t.Fatal(err)
	}
	coffer, err := o.v.Root().OpenDir(cofferDir)
	if err != nil {
		t.Fatal(err)
	}
	defer coffer.Close()
	if dir, err := coffer.OpenDir(importDir); err == nil {
		defer dir.Close()
		p := &partials{dir: dir, key: o.v.Ring().State()}
		err := dir.List(func(name string, _ uint64, _ uint8) error {
			stem, isRecord := strings.CutSuffix(name, recordSuffix)
			if r, ok, err := p.read(stem); isRecord && ok && err == nil {
				sum += int64(r.durable)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := o.close(false); err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestImportCuts cuts the power, or kills the process, after every host call of an import, with every model of what is lost: what shows is whole, and the
// same import makes the rest, without what a resume point says is there.
func TestImportCuts(t *testing.T) {
	dir, files := sourceTree(t)
	losses, step := append(disktest.PowerCuts(), disktest.Killed), 1
	if testing.Short() {
		step = len(losses)
	}
	importCuts(t, dir, files, losses, step, nil)
}

// TestImportCutsInTree does the same where tree nodes are written anew between resume points, with the losses that tear them.
func TestImportCutsInTree(t *testing.T) {
	dir, files := t.TempDir(), map[string][]byte{"large": make([]byte, 9<<19)}
	rand.NewChaCha8([32]byte{2}).Read(files["large"])
	if err := os.WriteFile(filepath.Join(dir, "large"), files["large"], 0o600); err != nil {
		t.Fatal(err)
	}
	geo, err := container.GeometryFor(16<<10, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	step := 3
	if testing.Short() {
		step = 11
	}
	importCuts(t, dir, files, []disktest.Loss{disktest.LoseSectors512, disktest.LoseTail, disktest.LoseSectors4K}, step, func(m *Import) {
		m.Geometry, m.sizes.step = geo, 128<<10
	})
}

// importCuts cuts one of step runs.
func importCuts(t *testing.T, dir string, files map[string][]byte, losses []disktest.Loss, step int, change func(*Import)) {
	t.Helper()
	noLeaks(t)
	m, mk := newDisk(t)
	m.Record()
	o, err := openDisk(m, mk)
	if err != nil {
		t.Fatal(err)
	}
	i := o.importer(func(path string, err error) { t.Error(path, err) })
	if change != nil {
		change(i)
	}
	if err := i.Run(context.Background(), o.tree.Root(), []Source{{Path: dir}}); err != nil {
		t.Fatal(err)
	}
	if err := o.close(true); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for name, p := range files {
		if name != "d/hard" {
			total += int64(len(p))
		}
	}
	n := m.Ops()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	cuts, resumed := 0, 0
	for k := 0; k <= n; k++ {
		durable := promised(t, m.CutAt(k, disktest.LoseAll, rng), mk)
		for i, loss := range losses {
			if (k+i)%step != 0 {
				continue
			}
			cuts++
			s, err := again(m.CutAt(k, loss, rng), mk, dir, files, change)
			if s.Reused > 0 {
				resumed++
			}
			if err == nil && s.Bytes > total-durable {
				err = fmt.Errorf("%d bytes are copied, of %d of which %d were durable", s.Bytes, total, durable)
			}
			if err != nil {
				t.Errorf("seed %d, cut after %d of %d operations (%v): %v", seed, k, n, loss, err)
				if t.Failed() && cuts > 200 {
					return
				}
			}
		}
	}
	t.Logf("%d cuts of %d operations; %d imports went on within a file", cuts, n, resumed)
	if resumed < cuts/10 {
		t.Errorf("of %d cuts only %d were gone on from", cuts, resumed)
	}
}

// TestImportFaults fails each host call of an import, once and from then on: it is told, nothing that shows is less than whole, and the same import makes the rest.
func TestImportFaults(t *testing.T) {
	noLeaks(t)
	base, mk := newDisk(t)
	dir, files := sourceTree(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name  string
		fault func(n int) disktest.Fault
		want  error
	}{
		{"once", func(n int) disktest.Fault { return disktest.FailCall(n, unix.EIO) }, unix.EIO},
		{"full", func(n int) disktest.Fault { return disktest.FailFrom(n, unix.ENOSPC) }, unix.ENOSPC},
	} {
		step := 1
		if testing.Short() {
			step = 7
		}
		for n := 0; ; n += step {
			m := base.Cut(disktest.LoseNothing, rng)
			o, err := openDisk(m, mk)
			if err != nil {
				t.Fatal(err)
			}
			m.SetFault(c.fault(n))
			var told error
			err = o.importer(func(_ string, err error) { told = errors.Join(told, err) }).Run(context.Background(), o.tree.Root(), []Source{{Path: dir}})
			struck := m.Struck()
			m.SetFault(nil)
			clean := err == nil && told == nil
			if cerr := o.close(clean); cerr != nil && clean {
				t.Fatal(cerr)
			}
			if !struck {
				if !clean {
					t.Errorf("%s: nothing failed, and yet %v, %v", c.name, err, told)
				}
				break
			}
			if _, aerr := again(m.Cut(disktest.Killed, rng), mk, dir, files, nil); aerr != nil {
				t.Errorf("%s, call %d (answered %v, told %v): %v", c.name, n, err, told, aerr)
			}
		}
	}
}

// TestImportGeometry: large files get that of streams, others the vault's; or all of them what is asked for.
func TestImportGeometry(t *testing.T) {
	base, mk := newDisk(t)
	dir := t.TempDir()
	files := map[string][]byte{"small": make([]byte, 10_000), "large": make([]byte, 9<<20+5)}
	for name, p := range files {
		rand.NewChaCha8([32]byte{1}).Read(p)
		if err := os.WriteFile(filepath.Join(dir, name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ segment, frame, small, large int }{{0, 0, 64 << 10, 1 << 20}, {4 << 20, 64 << 10, 4 << 20, 4 << 20}, {64 << 10, 4 << 10, 64 << 10, 64 << 10}} {
		o, err := openDisk(base.Cut(disktest.LoseNothing, rand.New(rand.NewPCG(1, 1))), mk)
		if err != nil {
			t.Fatal(err)
		}
		m := o.importer(func(path string, err error) { t.Error(path, err) })
		m.sizes, m.Geometry = limits{checkpoint: 8 << 20, step: stepBytes, small: smallFile}, nil
		if c.segment != 0 {
			if m.Geometry, err = container.GeometryFor(c.segment, c.frame); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Run(context.Background(), o.tree.Root(), []Source{{Path: dir}}); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int{"small": c.small, "large": c.large} {
			e, err := o.tree.Root().Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			if g, err := container.GeometryByID(e.Geometry); err != nil || g.SegmentSize != want {
				t.Errorf("%+v: %s has %v, %v", c, name, g, err)
			}
		}
		if err := errors.Join(o.check(files, true), o.close(true)); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
