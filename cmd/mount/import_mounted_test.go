package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cmd/mount/bulk"
	"github.com/cofferfs/coffer/container/plain"
)

// TestImportMounted: a mounted vault is written through its mount, without a secret, and has the same afterwards.
func TestImportMounted(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	tree := b.mkdir("tree")
	fill(t, tree)
	mp := b.mount(v, "plain")
	unchanged(t, func() {
		var p bulk.Planned
		r := b.ok("", "import", "--dry-run", "--json", v, tree+"/.")
		if err := json.Unmarshal([]byte(r.stdout), &p); err != nil || p.Files != 8 || p.Skipped != 0 || p.Failed != 0 {
			t.Errorf("dry run: %+v, %v", p, err)
		}
	}, tree, mp)
	if s := b.importInto(v, tree+"/."); s.Files != 7 || s.Failed != 0 || s.Directories != 3 {
		t.Errorf("first import: %+v", s)
	}
	sameTree(t, tree, mp)
	if s := b.importInto(v, tree+"/."); s.Files != 0 || s.Skipped != 8 || s.Failed != 0 {
		t.Errorf("second import: %+v", s)
	}
	changeByte(t, filepath.Join(tree, "big"), 5000)
	if s := b.importInto("--checksum", v, tree+"/."); s.Files != 1 || s.Failed != 0 {
		t.Errorf("import by checksum: %+v", s)
	}
	b.importInto(v, filepath.Join(tree, "small"), "renamed")
	if got := string(mustRead(t, filepath.Join(mp, "renamed"))); got != "small\n" {
		t.Errorf("renamed: %q", got)
	}
	if err := os.Remove(filepath.Join(mp, "renamed")); err != nil {
		t.Fatal(err)
	}

	b.fails(exitUsage, "has the vault's sizes", "", "import", "--segment-size", "1M", v, tree)
	b.fails(exitUsage, "is in the vault", "", "import", v, mp)
	b.fails(exitUsage, "the vault is in it", "", "import", v, b.dir)
	b.fails(exitUsage, "not a directory", "", "import", v, tree, tree, "nowhere")
	b.ok("", "umount", mp)
	keep := b.exported(v)
	sameTree(t, tree, keep)

	mp = b.mount(v, "plain")
	if s := b.importInto("--delete-source", v, tree); s.Removed != 18 || s.Kept != 0 {
		t.Errorf("import and removal: %+v", s)
	}
	if _, err := os.Lstat(tree); err == nil {
		t.Error("the source is still there")
	}
	sameTree(t, keep, filepath.Join(mp, "tree"))
	b.ok("", "umount", mp)
	b.mount(v, "plain", "-o", "ro")
	b.fails(exitInUse, "mounted for reading", "", "import", v, keep)
}

// TestImportMountedKilled kills imports into a mount, two at a time, until both come through: what shows is whole.
func TestImportMountedKilled(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	tree := b.mkdir("tree")
	fill(t, tree)
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(tree, "sub", fmt.Sprint("f", i)), randomBytes(byte(i), i*7_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mp := b.mount(v, "plain")
	for _, to := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(mp, to), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	rng := mrand.New(mrand.NewPCG(seed, 1))
	for round, through := 0, false; !through; round++ {
		if round > 60 {
			t.Fatal("it never comes through")
		}
		through = true
		var runs []*exec.Cmd
		for _, to := range []string{"a", "b"} {
			cmd := b.command(context.Background(), "import", "--progress", "none", v, tree+"/.", to)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer time.AfterFunc(time.Duration(10+rng.IntN(60*(round+1)))*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) }).Stop()
			runs = append(runs, cmd)
		}
		for _, cmd := range runs {
			if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != -1 {
				t.Fatalf("seed %d: exit %d", seed, cmd.ProcessState.ExitCode())
			}
			through = through && cmd.ProcessState.Success()
		}
		err := filepath.WalkDir(mp, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".coffer-export-") {
				return err
			}
			rel, _ := filepath.Rel(mp, path)
			if !bytes.Equal(mustRead(t, path), mustRead(t, filepath.Join(tree, rel[2:]))) {
				t.Errorf("seed %d: %s shows and is not whole", seed, rel)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	sameTree(t, tree, filepath.Join(mp, "a"))
	sameTree(t, tree, filepath.Join(mp, "b"))
}

// TestImportMountedFull fills the host below a mount: the import says so and goes on when there is room.
func TestImportMountedFull(t *testing.T) {
	b := newBox(t)
	tree := b.mkdir("tree")
	for i := range 30 {
		if err := os.WriteFile(filepath.Join(tree, fmt.Sprint("f", i)), randomBytes(byte(i), 2_000_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, grow := b.smallDisk("host", 40)
	v := filepath.Join(host, "vault")
	b.ok(passphrase+"\n", append([]string{"init", "--recovery-file", b.path("rk"), v}, cheap...)...)
	mp := b.mount(v, "plain")
	b.warnings = append(b.warnings, unix.ENOSPC.Error())
	r := b.run("", "import", v, tree+"/.")
	if r.code != int(exitHostFull) || !strings.Contains(r.stderr, "hint: make room") {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	grow(200)
	b.importInto(v, tree+"/.")
	sameTree(t, tree, mp)
}

// TestImportMountedGoesOn kills an import into a mount within a large file; while it is on its way a second one is told so, and the next goes on.
func TestImportMountedGoesOn(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	tree := b.mkdir("tree")
	large(t, filepath.Join(tree, "large"))
	mp := b.mount(v, "plain")
	b.killHalfway(mp, "import", "--progress", "none", v, tree+"/.")
	all, err := filepath.Glob(filepath.Join(mp, ".coffer-export-*.part"))
	if err != nil || len(all) != 1 {
		t.Fatalf("left: %v, %v", all, err)
	}
	held, err := os.Open(all[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	r := b.run("", "import", v, tree+"/.")
	if r.code != int(exitOther) || !strings.Contains(r.stderr, "another process is copying to it") {
		t.Errorf("two at once: exit %d\n%s", r.code, r.stderr)
	}
	held.Close()
	if s := b.importInto(v, tree+"/."); s.Files != 1 || s.Reused < 32<<20 || s.Bytes+s.Reused != largeBytes {
		t.Errorf("it did not go on: %+v", s)
	}
	sameTree(t, tree, mp)
}

// syncNode counts what is made durable of a mount, and fails for one name.
type syncNode struct {
	mounted
	synced map[string]int
	bad    string
}

func (n syncNode) Child(name string) (plain.Node, error) {
	c, err := n.mounted.Child(name)
	if err != nil {
		return nil, err
	}
	n.mounted = c.(mounted)
	return n, nil
}

func (n syncNode) Sync() error {
	n.synced[n.name]++
	if n.name == n.bad {
		return syscall.EIO
	}
	return n.mounted.Sync()
}

// What is in a mount already may have been written a moment ago: a source goes only when what stands for it is durable.
func TestRemoveOfWhatIsInAMount(t *testing.T) {
	src, mp := t.TempDir(), t.TempDir()
	for _, dir := range []string{src, mp} {
		noError(t, os.MkdirAll(filepath.Join(dir, "tree", "empty"), 0o755))
		writeFile(t, filepath.Join(dir, "tree", "file"), "data")
		writeFile(t, filepath.Join(dir, "tree", "bad"), "data")
		noError(t, os.Symlink("file", filepath.Join(dir, "tree", "link")))
	}
	to := syncNode{mounted{path: mp}, map[string]int{}, "bad"}
	var failed []string
	removed, kept := bulk.Remove(context.Background(), to, []bulk.Source{{Path: filepath.Join(src, "tree"), Name: "tree"}}, func(path string, err error) {
		failed = append(failed, fmt.Sprint(filepath.Base(path), " ", err))
	})
	if removed != 3 || kept != 1 || len(failed) != 1 || !strings.HasPrefix(failed[0], "bad ") {
		t.Errorf("%d removed, %d kept, failed %q", removed, kept, failed)
	}
	if left, _ := os.ReadDir(filepath.Join(src, "tree")); len(left) != 1 || left[0].Name() != "bad" {
		t.Errorf("left: %v", left)
	}
	for _, name := range []string{"file", "bad", "link", "empty"} {
		if to.synced[name] == 0 {
			t.Errorf("%s was not made durable", name)
		}
	}
}
