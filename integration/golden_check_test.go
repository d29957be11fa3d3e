package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/check"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// checkGolden runs verify on a golden vault. An error says that it does not open, or is one of the check's.
func checkGolden(dir string, pass []byte) (sum check.Summary, found []check.Finding, err error) {
	g, err := openGo(dir, pass, "", vault.OpenOptions{ReadOnly: true})
	if err != nil {
		return sum, nil, err
	}
	sum, err = check.Verify(context.Background(), g.checkConfig(func(f check.Finding) { found = append(found, f) }))
	if cerr := g.close(); err == nil {
		err = cerr
	}
	return sum, found, err
}

// TestGoldenCheck: verify and scrub find no damage in golden vaults, and look at all of them.
func TestGoldenCheck(t *testing.T) {
	for _, spec := range goldenVaults {
		t.Run(spec.name, func(t *testing.T) {
			dir, _ := spec.unpack(t)
			pass, _ := spec.secrets(t)
			sum, found, err := checkGolden(dir, pass)
			if err != nil || sum.Damage > 0 || sum.Unchecked > 0 || sum.Objects < 20 || sum.Bytes < 50_000 {
				t.Errorf("verify: %+v, %v%s", sum, err, findingLines(found))
			}
			root, err := disk.OpenReadOnly(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			found = nil
			scrub, err := check.Scrub(context.Background(), check.ScrubConfig{
				Root: root, Pending: spec.unclean, Found: func(f check.Finding) { found = append(found, f) },
			})
			if err != nil || scrub.Damage > 0 || scrub.Unchecked > 0 || scrub.Bytes < sum.Bytes || !spec.unclean && scrub.Pending > 0 {
				t.Errorf("scrub: %+v, %v%s", scrub, err, findingLines(found))
			}
		})
	}
}

// TestGoldenRepair damages the sparse file with all levels of a tree, and others, and repairs them.
func TestGoldenRepair(t *testing.T) {
	spec := goldenVaults[0]
	pass, _ := spec.secrets(t)
	dir, _ := spec.unpack(t)
	g, err := openGo(dir, pass, "", vault.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	host := func(name string) string {
		e, err := g.tree.Root().Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return hostNameOf(g, g.tree.Root(), e)
	}
	meta := g.engine.Geometry().HostLength(32*256<<10+1) - 1 - container.BlockSize
	far := host("far")
	err = errors.Join(flipBit(far, meta-2*container.BlockSize+70)(dir), flipBit(far, 520)(dir), flipBit(host("segment"), 8192+70)(dir),
		os.Rename(filepath.Join(dir, host("hello")), filepath.Join(dir, host("docs"), host("hello"))))
	if err := errors.Join(err, g.close()); err != nil {
		t.Fatal(err)
	}
	if g, err = openGo(dir, pass, "", vault.OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	var done []check.Action
	cfg := check.RepairConfig{Config: g.checkConfig(nil), Tree: g.tree, Done: func(a check.Action) { done = append(done, a) }}
	_, kept, err := check.Repair(context.Background(), cfg)
	if err := errors.Join(err, g.close()); err != nil || kept != 0 || len(done) != 3 {
		t.Fatalf("%v, %d kept: %+v", err, kept, done)
	}
	sum, found, err := checkGolden(dir, pass)
	if err != nil || sum.Damage > 0 {
		t.Errorf("left: %v%s", err, findingLines(found))
	}
}

func (g *goVault) checkConfig(found func(check.Finding)) check.Config {
	return check.Config{
		Root: g.v.Root(), RootID: g.v.Config().VaultID.Root(), Codec: g.codec, Attrs: xattrs.New(g.v.Ring().Xattr()), Engine: g.engine,
		UncleanSeq: g.v.UncleanSeq, UncleanTime: g.v.UncleanTime, Unclean: g.v.Unclean(), Found: found,
	}
}

func findingLines(all []check.Finding) (s string) {
	for _, f := range all {
		s += fmt.Sprintf("\n%+v", f)
	}
	return s
}
