package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cmd/mount/bulk"
)

// sameTree compares everything that an export keeps.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	inodes := map[uint64]uint64{} // of want and of got
	seen := 0
	err := filepath.WalkDir(want, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(want, path)
		other := filepath.Join(got, rel)
		var a, b unix.Stat_t
		if err := unix.Lstat(path, &a); err != nil {
			return err
		}
		if err := unix.Lstat(other, &b); err != nil {
			t.Errorf("%q: %v", rel, err)
			return nil
		}
		seen++
		if rel == "." {
			return nil // was there before, or is the caller's
		}
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid {
			t.Errorf("%q: mode %o of %d:%d, want %o of %d:%d", rel, b.Mode, b.Uid, b.Gid, a.Mode, a.Uid, a.Gid)
		}
		if a.Mtim != b.Mtim {
			t.Errorf("%q: mtime %v, want %v", rel, b.Mtim, a.Mtim)
		}
		if d.IsDir() {
			return nil
		}
		if a.Size != b.Size || a.Nlink != b.Nlink {
			t.Errorf("%q: %d bytes, %d links, want %d, %d", rel, b.Size, b.Nlink, a.Size, a.Nlink)
		}
		if ino, ok := inodes[a.Ino]; ok && ino != b.Ino {
			t.Errorf("%q is no hard link", rel)
		}
		inodes[a.Ino] = b.Ino
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			if x, y := readlink(t, path), readlink(t, other); x != y {
				t.Errorf("%q points to %q, want %q", rel, y, x)
			}
		case d.Type().IsRegular():
			x, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			y, err := os.ReadFile(other)
			if err != nil || !bytes.Equal(x, y) {
				t.Errorf("%q: other bytes, %v", rel, err)
			}
			v, w := make([]byte, 100), make([]byte, 100)
			n, _ := unix.Lgetxattr(path, "user.note", v)
			m, _ := unix.Lgetxattr(other, "user.note", w)
			if n != m || !bytes.Equal(v, w) {
				t.Errorf("%q: attribute %q, want %q", rel, w, v)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	here := 0
	err = filepath.WalkDir(got, func(path string, _ fs.DirEntry, err error) error { here++; return err })
	if err != nil || here != seen {
		t.Errorf("%d objects, want %d, %v", here, seen, err)
	}
}

func readlink(t *testing.T, path string) string {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Error(err)
	}
	return target
}

func (b *box) export(stdin string, args ...string) bulk.Summary {
	b.t.Helper()
	r := b.ok(stdin, append([]string{"export", "--json"}, args...)...)
	var s bulk.Summary
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

func TestExport(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	fill(t, mp)
	want := b.path("want")
	// Through the mount, so that there is something to compare with: cp knows all of it.
	if s := b.export("", v, "/", want); s.Files != 7 || s.Failed != 0 {
		t.Errorf("export of a mount: %+v", s)
	}
	sameTree(t, mp, want)
	b.ok("", "umount", mp)

	out := b.path("out")
	unchanged(t, func() {
		if s := b.export(passphrase+"\n", v, "/", out); s.Files != 7 || s.Directories != 3 || s.Failed != 0 || s.Skipped != 0 {
			t.Errorf("first export: %+v", s)
		}
	}, v)
	sameTree(t, want, out)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(out, "sparse"), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("a sparse file takes %d bytes", st.Blocks*512)
	}

	// Again: nothing is copied. What differs is replaced.
	if s := b.export(passphrase+"\n", v, "/", out); s.Files != 0 || s.Skipped != 8 {
		t.Errorf("second export: %+v", s)
	}
	same := filepath.Join(out, "big")
	stBefore, err := os.Stat(same)
	if err != nil {
		t.Fatal(err)
	}
	changeByte(t, same, 1<<20)
	if err := os.Chtimes(same, stBefore.ModTime(), stBefore.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "small"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := b.export(passphrase+"\n", v, "/", out); s.Files != 1 {
		t.Errorf("export over one file that differs in size: %+v", s)
	}
	if s := b.export(passphrase+"\n", "--checksum", v, "/", out); s.Files != 1 {
		t.Errorf("export over one file that differs in a byte: %+v", s)
	}
	sameTree(t, want, out)

	// Parts of it.
	b.export(passphrase+"\n", v, "sub/deep/file", b.path("single"))
	if got, err := os.ReadFile(b.path("single")); err != nil || !bytes.Equal(got, randomBytes(8, 70_000)) {
		t.Errorf("single file: %d bytes, %v", len(got), err)
	}
	b.export(passphrase+"\n", v, "sub", b.path("renamed"))
	sameTree(t, filepath.Join(want, "sub/deep"), b.path("renamed/deep"))
	b.export(passphrase+"\n", v, "sub/deep", "link", b.path("several"))
	sameTree(t, filepath.Join(want, "sub/deep"), b.path("several/deep"))
	if readlink(t, b.path("several/link")) != "sub/deep/file" {
		t.Error("the symlink was not copied as one")
	}
}

func changeByte(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 1)
	if _, err := f.ReadAt(p, at); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{p[0] ^ 1}, at); err != nil {
		t.Fatal(err)
	}
}

func TestExportErrors(t *testing.T) {
	b := newBox(t)
	v, _ := b.filledVault()
	in := passphrase + "\n"
	b.fails(exitUsage, "takes at least 3 arguments and got 2", "", "export", v, "x")
	b.fails(exitUsage, "inside the vault", "", "export", v, "/", filepath.Join(v, "sub"))
	b.fails(exitUsage, "does not exist", in, "export", v, "/", b.path("a/b"))
	b.fails(exitUsage, "does not exist", in, "export", v, "small", b.path("a/b"))
	b.fails(exitUsage, "cannot export to", in, "export", v, "sub", b.write("file", "x"))
	b.fails(exitOther, "no such file", in, "export", v, "nope", b.path("out"))
	b.fails(exitUsage, "unknown kind of progress", "", "export", "--progress", "loud", v, "/", b.path("out"))
	b.mkdir("out/small")
	r := b.run(in, "export", v, "/", b.path("out"))
	if r.code != int(exitOther) || !strings.Contains(r.stderr, "stands in the way") || !strings.Contains(r.stderr, "1 objects were not copied") {
		t.Errorf("a directory in the way: exit %d\n%s", r.code, r.stderr)
	}
	if _, err := os.Stat(b.path("out/sub/deep/file")); err != nil {
		t.Errorf("the rest was not copied: %v", err)
	}
	r = b.ok(in, "export", "--progress", "json", "--json", v, "/", b.path("out2"))
	var last progressReport
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Files != 7 || last.Bytes != last.BytesTotal || last.FilesTotal != 7 {
		t.Errorf("progress %+v, %v", last, err)
	}
	mp := b.mount(v, "plain")
	b.fails(exitUsage, "inside the vault, which is mounted", "", "export", v, "/", filepath.Join(mp, "copy"))
}

// TestExportSalvage damages a frame: the file is not copied, and with --salvage it is, with a hole in its place.
func TestExportSalvage(t *testing.T) {
	b := newBox(t)
	v, tree := b.filledVault()
	big, err := os.ReadFile(filepath.Join(tree, "big"))
	if err != nil {
		t.Fatal(err)
	}
	changeByte(t, largestFile(t, v), 2<<20)
	out := b.path("out")
	for range 2 {
		r := b.run(passphrase+"\n", "export", v, "/", out)
		if r.code != int(exitDamage) || !strings.Contains(r.stderr, "authentication failed") || !strings.Contains(r.stderr, "2 objects are damaged") {
			t.Errorf("exit %d\n%s", r.code, r.stderr)
		}
		for _, name := range []string{"big", "sub/hard"} {
			if _, err := os.Lstat(filepath.Join(out, name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a damaged file has its name %s: %v", name, err)
			}
		}
		if _, err := os.Stat(filepath.Join(out, "sub/deep/file")); err != nil {
			t.Error(err)
		}
	}
	for range 2 { // what was salvaged is never finished
		r := b.run(passphrase+"\n", "export", "--salvage", v, "/", out)
		if r.code != int(exitDamage) || !strings.Contains(r.stderr, "are lost") || !strings.Contains(r.stderr, "4096 bytes are holes") {
			t.Errorf("salvage: exit %d\n%s", r.code, r.stderr)
		}
		got, err := os.ReadFile(filepath.Join(out, "big"))
		if err != nil || len(got) != len(big) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		bad := 0
		for at := 0; at < len(big); at += 4096 {
			end := min(at+4096, len(big))
			if !bytes.Equal(got[at:end], big[at:end]) {
				bad++
				if !bytes.Equal(got[at:end], make([]byte, end-at)) || !strings.Contains(r.stderr, fmt.Sprintf("bytes %d to %d are lost", at, end)) {
					t.Errorf("frame at %d is not a hole, or not told", at)
				}
			}
		}
		if bad != 1 {
			t.Errorf("%d frames differ", bad)
		}
	}
}

// TestExportKilled kills an export at random moments until one comes through: at no moment is anything but whole files under final names.
func TestExportKilled(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	for i := range 60 {
		dir := filepath.Join(mp, fmt.Sprint("d", i%7))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), randomBytes(byte(i), i*30_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := b.path("want")
	b.export("", v, "/", want)
	b.ok("", "umount", mp)
	out := b.path("out")
	seed := uint64(time.Now().UnixNano())
	rng := mrand.New(mrand.NewPCG(seed, 1))
	kills := 0
	key := b.path("key")
	b.ok(passphrase+"\n", "key", "add", "--keyfile", key, v)
	for round := 0; ; round++ {
		cmd := b.command(context.Background(), "export", "--progress", "none", "--keyfile", key, v, "/", out)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(rng.IntN(30*(round+1)))*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		err := cmd.Wait()
		timer.Stop()
		_ = filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".coffer-export-") {
				return nil
			}
			rel, _ := filepath.Rel(out, path)
			got, gerr := os.ReadFile(path)
			whole, werr := os.ReadFile(filepath.Join(want, rel))
			if gerr != nil || werr != nil || !bytes.Equal(got, whole) {
				t.Errorf("seed %d: %s is not whole: %v %v", seed, rel, gerr, werr)
			}
			return nil
		})
		if err == nil {
			break
		}
		if cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("exit %d", cmd.ProcessState.ExitCode())
		}
		kills++
		if kills > 200 {
			t.Fatal("it never comes through")
		}
	}
	sameTree(t, want, out)
	t.Logf("%d kills", kills)
}

// large makes a file that is killed on its way by killHalfway: more than is held back of what may be lost, some of it before that and some behind.
func large(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	noError(t, err)
	defer f.Close()
	for i := range largeBytes / (5 << 20) {
		_, err := f.Write(randomBytes(byte(i), 5<<20))
		noError(t, err)
	}
}

const largeBytes = 180 << 20

// killHalfway runs the program and kills it when 100 MiB of the file "large" are on their way in dir, of which 36 are durable. Where this process was too
// slow for that it is done again.
func (b *box) killHalfway(dir string, args ...string) {
	b.t.Helper()
	half := func() bool {
		var st unix.Stat_t
		all, err := filepath.Glob(filepath.Join(dir, ".coffer-export-*.part"))
		return err == nil && len(all) == 1 && unix.Stat(all[0], &st) == nil && st.Blocks*512 > 100<<20
	}
	for range 10 {
		cmd := b.command(context.Background(), args...)
		noError(b.t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for !half() && len(ended) == 0 {
			time.Sleep(time.Millisecond)
		}
		_ = cmd.Process.Signal(syscall.SIGKILL)
		<-ended
		if cmd.ProcessState.ExitCode() == -1 {
			return
		}
		if !cmd.ProcessState.Success() {
			b.t.Fatalf("%s: exit %d", args, cmd.ProcessState.ExitCode())
		}
		noError(b.t, os.Remove(filepath.Join(dir, "large")))
	}
	b.t.Fatalf("%s: it is never killed in time", args)
}

// TestExportGoesOn kills an export, and one through the mount, in the middle of a large file: the next one goes on there.
func TestExportGoesOn(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	large(t, filepath.Join(mp, "large"))
	want := mustRead(t, filepath.Join(mp, "large"))
	key := b.path("key")
	for _, how := range []string{"mounted", "offline"} {
		out := b.mkdir(how)
		if how == "offline" {
			b.ok("", "umount", mp)
			b.ok(passphrase+"\n", "key", "add", "--keyfile", key, v)
		}
		args := []string{"export", "--progress", "none", "--json", "--keyfile", key, v, "/", out}
		b.killHalfway(out, args...)
		if all, err := os.ReadDir(out); err != nil || len(all) != 1 || !strings.HasPrefix(all[0].Name(), ".coffer-export-") {
			t.Errorf("%s: after the kill: %v, %v", how, all, err)
		}
		var s bulk.Summary
		if err := json.Unmarshal([]byte(b.ok("", args...).stdout), &s); err != nil {
			t.Fatal(err)
		}
		if s.Files != 1 || s.Reused < 32<<20 || s.Bytes+s.Reused != int64(len(want)) {
			t.Errorf("%s: it did not go on: %+v", how, s)
		}
		const frame = 4 << 10
		if how == "offline" && (s.Frames*frame != s.Bytes || s.ReusedFrames*frame != s.Reused || s.Segments*16 != s.Frames || s.VaultBytes < s.Bytes || s.Sealing <= 0) ||
			how == "mounted" && (s.Frames != 0 || s.VaultBytes != 0) || s.Reading <= 0 || s.Writing <= 0 || s.Syncing <= 0 {
			t.Errorf("%s: the summary: %+v", how, s)
		}
		if all, err := os.ReadDir(out); err != nil || len(all) != 1 || !bytes.Equal(mustRead(t, filepath.Join(out, "large")), want) {
			t.Errorf("%s: other bytes, or leftovers: %v, %v", how, all, err)
		}
		os.RemoveAll(out)
	}
}
