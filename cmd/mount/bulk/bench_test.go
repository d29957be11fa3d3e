package bulk

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/plain"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
)

// hostVault makes a vault on the disk of the temporary directory and opens it.
func hostVault(b *testing.B, p vault.Params) *opened {
	b.Helper()
	dir := b.TempDir()
	if _, err := vault.Create(dir, vault.Options{Params: p, KDF: vault.KDF{Time: 1, MemoryKiB: 8, Threads: 1}}, passphrase); err != nil {
		b.Fatal(err)
	}
	cfg, err := vault.ReadConfig(dir)
	if err != nil {
		b.Fatal(err)
	}
	mk, err := cfg.Unlock(passphrase)
	if err != nil {
		b.Fatal(err)
	}
	defer mk.Destroy()
	o := &opened{}
	if o.v, err = vault.Open(dir, cfg, mk, vault.OpenOptions{}); err != nil {
		b.Fatal(err)
	}
	engine, err := container.NewEngine(container.EngineConfig{Ring: o.v.Ring(), Params: o.v.Params()})
	if err != nil {
		b.Fatal(err)
	}
	o.tree, err = dirs.New(dirs.Config{
		Root: o.v.Root(), RootID: o.v.Config().VaultID.Root(), Codec: names.New(o.v.Ring().Names()), Geometry: o.v.GeometryID(), NextSeq: o.v.NextSeq, SawSeq: o.v.SawSeq,
	})
	if err != nil {
		b.Fatal(err)
	}
	o.view = &plain.View{Tree: o.tree, Engine: engine, Attrs: xattrs.New(o.v.Ring().Xattr()), UncleanTime: o.v.UncleanTime, UncleanSeq: o.v.UncleanSeq}
	b.Cleanup(func() {
		if err := o.close(true); err != nil {
			b.Error(err)
		}
	})
	return o
}

// plainCopy is what cp and a sync do; it returns how long that took.
func plainCopy(b *testing.B, from, to string) time.Duration {
	b.Helper()
	start := time.Now()
	src, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	// Not os.File.ReadFrom, which may share blocks.
	if _, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 1<<20)); err != nil {
		b.Fatal(err)
	}
	if err := dst.Sync(); err != nil {
		b.Fatal(err)
	}
	dst.Close()
	took := time.Since(start)
	os.Remove(to)
	return took
}

// BenchmarkLarge imports and exports one file of 256 MiB; x-cp is the rate over that of a copy with an fsync on the same disk.
func BenchmarkLarge(b *testing.B) {
	const size = 256 << 20
	dir := b.TempDir()
	src := filepath.Join(dir, "source")
	f, err := os.Create(src)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{1}), size); err != nil {
		b.Fatal(err)
	}
	f.Close()
	ctx := context.Background()
	for _, params := range []vault.Params{{}, {SegmentSize: 1 << 20}} {
		o := hostVault(b, params)
		failed := func(path string, err error) { b.Error(path, err) }
		name := o.view.Engine.Geometry().String()
		i := 0
		b.Run("import/"+name, func(b *testing.B) {
			b.SetBytes(size)
			var cp time.Duration
			for b.Loop() {
				b.StopTimer()
				cp += plainCopy(b, src, filepath.Join(dir, "copy"))
				i++
				b.StartTimer()
				m := &Import{View: o.view, Root: o.v.Root(), Key: o.v.Ring().State(), SyncOf: o.v.Root().SyncAll, Failed: failed}
				if err := m.Run(ctx, o.tree.Root(), []Source{{src, fmt.Sprint(i)}}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if i > 1 {
					if _, err := o.tree.Root().Unlink(fmt.Sprint(i - 1)); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
			b.ReportMetric(cp.Seconds()/b.Elapsed().Seconds(), "x-cp")
		})
		b.Run("export/"+name, func(b *testing.B) {
			b.SetBytes(size)
			var cp time.Duration
			for b.Loop() {
				b.StopTimer()
				cp += plainCopy(b, src, filepath.Join(dir, "copy"))
				os.Remove(filepath.Join(dir, "out"))
				n, err := o.view.Root().Child(fmt.Sprint(i))
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				e := &Export{Damage: func(error) bool { return false }, Failed: failed}
				if err := e.Run(ctx, dir, []Job{{n, "out"}}); err != nil {
					b.Fatal(err)
				}
				n.Release()
			}
			b.ReportMetric(cp.Seconds()/b.Elapsed().Seconds(), "x-cp")
		})
	}
}

// BenchmarkSmall imports and exports 2,000 files of 4 KiB.
func BenchmarkSmall(b *testing.B) {
	const files = 2000
	dir := b.TempDir()
	src := filepath.Join(dir, "source")
	for i := range files {
		name := filepath.Join(src, fmt.Sprint(i%20), fmt.Sprint(i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, make([]byte, 4096), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	o := hostVault(b, vault.Params{})
	failed := func(path string, err error) { b.Error(path, err) }
	i := 0
	b.Run("import", func(b *testing.B) {
		for b.Loop() {
			i++
			m := &Import{View: o.view, Root: o.v.Root(), Key: o.v.Ring().State(), SyncOf: o.v.Root().SyncAll, Failed: failed}
			if err := m.Run(context.Background(), o.tree.Root(), []Source{{src, fmt.Sprint(i)}}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*files), "us/file")
	})
	b.Run("export", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			os.RemoveAll(filepath.Join(dir, "out"))
			b.StartTimer()
			n, err := o.view.Root().Child(fmt.Sprint(i))
			if err != nil {
				b.Fatal(err)
			}
			e := &Export{Damage: func(error) bool { return false }, Failed: failed}
			if err := e.Run(context.Background(), dir, []Job{{n, "out"}}); err != nil {
				b.Fatal(err)
			}
			n.Release()
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*files), "us/file")
	})
}
