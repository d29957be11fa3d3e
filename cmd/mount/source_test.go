package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fill puts a small tree with one of each kind into dir.
func fill(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "sub/deep"), 0o750))
	must(os.WriteFile(filepath.Join(dir, "small"), []byte("small\n"), 0o640))
	must(os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	must(os.WriteFile(filepath.Join(dir, "big"), randomBytes(7, 3<<20+123), 0o600))
	must(os.WriteFile(filepath.Join(dir, "sub/deep/file"), randomBytes(8, 70_000), 0o444))
	must(os.WriteFile(filepath.Join(dir, strings.Repeat("n", 250)), []byte("long name"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "odd\n\xffname"), []byte("odd"), 0o600))
	must(os.Symlink("sub/deep/file", filepath.Join(dir, "link")))
	must(os.Symlink("../sub/../sub/deep", filepath.Join(dir, "sub/up")))
	must(os.Symlink("/etc/passwd", filepath.Join(dir, "absolute")))
	must(os.Symlink("../../outside", filepath.Join(dir, "outside")))
	must(os.Symlink("loop", filepath.Join(dir, "loop")))
	must(os.Symlink(strings.Repeat("x/", 1900)+"x", filepath.Join(dir, "long link")))
	must(os.Link(filepath.Join(dir, "big"), filepath.Join(dir, "sub/hard")))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(err)
	_, err = f.WriteAt([]byte("middle"), 5<<20)
	must(err)
	must(f.Truncate(9 << 20))
	must(f.Close())
	must(unix.Setxattr(filepath.Join(dir, "small"), "user.note", []byte("an attribute"), 0))
	past := unix.Timespec{Sec: 1_000_000_000, Nsec: 123_456_789}
	must(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "sub/deep/file"), []unix.Timespec{past, past}, 0))
	must(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "sub/deep"), []unix.Timespec{past, past}, 0))
}

// filledVault is a vault with the tree of fill, and that tree beside it.
func (b *box) filledVault() (vault, tree string) {
	b.t.Helper()
	vault, _ = b.newVault("vault")
	tree = b.mkdir("tree")
	fill(b.t, tree)
	mp := b.mount(vault, "plain")
	fill(b.t, mp)
	b.ok("", "umount", mp)
	return vault, tree
}

// TestLookInside: ls, cat and stat without a mount, through one, and beside one that is for reading only; nothing is changed by them.
func TestLookInside(t *testing.T) {
	b := newBox(t)
	v, tree := b.filledVault()
	unchanged(t, func() { b.looksInside(v, tree, passphrase+"\n") }, v)
	b.fails(exitPassphrase, "wrong passphrase", "wrong\n", "ls", v)
	b.fails(exitUsage, "takes 2 arguments", "", "cat", v)
	b.fails(exitUsage, "takes 1 or 2 arguments and got 0", "", "ls")
	b.fails(exitVaultDir, "does not exist", "", "ls", b.path("nope"))

	// Mounted, no passphrase is asked for. Following a symlink out of the mount is refused there too.
	mp := b.mount(v, "plain")
	b.looksInside(v, tree, "")
	b.ok("", "umount", mp)

	// A mount for reading only shares the vault.
	mp = b.mount(v, "plain", "-o", "ro")
	b.looksInside(v, tree, passphrase+"\n")
	b.ok("", "umount", mp)
}

// looksInside compares what ls, cat and stat say of a vault with the tree that it was filled from.
func (b *box) looksInside(v, tree, stdin string) {
	t := b.t
	t.Helper()
	ok := func(args ...string) string {
		t.Helper()
		r := b.ok(stdin, args...)
		if r.stderr != "" {
			t.Errorf("%v: %s", args, r.stderr)
		}
		return r.stdout
	}
	entries, err := os.ReadDir(tree)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, e := range entries {
		want = append(want, e.Name())
	}
	slices.Sort(want)
	if got := ok("ls", v); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("ls: %q", got)
	}
	var all []objectInfo
	if err := json.Unmarshal([]byte(ok("ls", "--json", v, "sub/up")), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].Name != "file" || all[0].Type != "file" || all[0].Mode != "0444" || all[0].Size != 70_000 || all[0].Mtime.UnixNano() != 1_000_000_000_123_456_789 {
		t.Errorf("ls --json: %+v", all)
	}
	long := ok("ls", "-l", v, "/")
	for _, part := range []string{"drwxr-x---", "-rw-r-----", "prw", "link -> sub/deep/file", fmt.Sprint(3<<20 + 123)} {
		if !strings.Contains(long, part) {
			t.Errorf("ls -l lacks %q:\n%s", part, long)
		}
	}
	if got := ok("ls", v, "small"); got != "small\n" {
		t.Errorf("ls of a file: %q", got)
	}
	var st objectInfo
	if err := json.Unmarshal([]byte(ok("stat", "--json", v, "sub/hard")), &st); err != nil || st.Nlink != 2 || st.Size != 3<<20+123 {
		t.Errorf("stat: %+v, %v", st, err)
	}
	if got := ok("stat", v, "long link"); !strings.Contains(got, "symlink") || !strings.Contains(got, "x/x/x") {
		t.Errorf("stat of a symlink: %s", got)
	}
	big, err := os.ReadFile(filepath.Join(tree, "big"))
	if err != nil {
		t.Fatal(err)
	}
	sparse, err := os.ReadFile(filepath.Join(tree, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want []byte
		args []string
	}{
		{big, []string{"big"}},
		{big, []string{"/sub/hard"}},
		{big[:10], []string{"big", "--length", "10"}},
		{big[1<<20+5 : 2<<20], []string{"big", "--offset", fmt.Sprint(1<<20 + 5), "--length", fmt.Sprint(1<<20 - 5)}},
		{big[3<<20:], []string{"big", "--offset", fmt.Sprint(3 << 20), "--length", "1000000"}},
		{nil, []string{"big", "--offset", fmt.Sprint(4 << 20)}},
		{nil, []string{"big", "--length", "0"}},
		{nil, []string{"empty"}},
		{sparse, []string{"sparse"}},
		{[]byte("odd"), []string{"odd\n\xffname"}},
		{[]byte("long name"), []string{strings.Repeat("n", 250)}},
		{randomBytes(8, 70_000), []string{"link"}},
		{randomBytes(8, 70_000), []string{"sub/up/file"}},
	} {
		if got := ok(append([]string{"cat", v}, c.args...)...); !bytes.Equal([]byte(got), c.want) {
			t.Errorf("cat %v: %d bytes, want %d", c.args, len(got), len(c.want))
		}
	}
	b.fails(exitOther, "no such file", stdin, "cat", v, "nope")
	b.fails(exitOther, "is a directory", stdin, "cat", v, "sub")
	b.fails(exitOther, "no contents", stdin, "cat", v, "fifo")
	b.fails(exitOther, "not a directory", stdin, "cat", v, "small/x")
	b.fails(exitOther, "no such file", stdin, "stat", v, "nope")
	b.fails(exitOther, "no such file", stdin, "ls", v, "nope")
	for _, link := range []string{"absolute", "outside"} {
		b.fails(exitOther, "leads out", stdin, "cat", v, link)
	}
	b.fails(exitOther, "symbolic links", stdin, "cat", v, "loop")
	b.fails(exitUsage, "negative", stdin, "cat", v, "big", "--offset=-1")
}

// TestLookAtDamage flips a byte of every host file: what is touched by it fails, with its code, and the rest is read.
func TestLookAtDamage(t *testing.T) {
	b := newBox(t)
	v, tree := b.filledVault()
	big, err := os.ReadFile(filepath.Join(tree, "big"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(tree, "big"))
	if err != nil || st.Size() != int64(len(big)) {
		t.Fatal(err)
	}
	host := largestFile(t, v)
	f, err := os.OpenFile(host, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1)
	if _, err := f.ReadAt(p, 2<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{p[0] ^ 1}, 2<<20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	out, r := b.pipe([]byte(passphrase+"\n"), "cat", v, "big")
	if r.code != int(exitDamage) || !bytes.HasPrefix(big, out) || !strings.Contains(r.stderr, "authentication failed") || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("exit %d after %d bytes\n%s", r.code, len(out), r.stderr)
	}
	if got := b.ok(passphrase+"\n", "cat", v, "big", "--length", "1000000").stdout; !bytes.Equal([]byte(got), big[:1000000]) {
		t.Error("what is not damaged is not read")
	}
}

// TestLookAtHiddenNames changes a sealed name: it is hidden, which is told, and the others are there.
func TestLookAtHiddenNames(t *testing.T) {
	b := newBox(t)
	v, _ := b.filledVault()
	count := func(r result) int { // not lines: a name may have some
		t.Helper()
		var all []objectInfo
		if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := count(b.ok(passphrase+"\n", "ls", "--json", v))
	entries, err := os.ReadDir(v)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(entries, func(e os.DirEntry) bool { return e.Type().IsRegular() && !strings.HasSuffix(e.Name(), ".name") })
	name := []byte(entries[i].Name())
	name[10] = map[bool]byte{true: 'B', false: 'A'}[name[10] == 'A']
	if err := os.Rename(filepath.Join(v, entries[i].Name()), filepath.Join(v, string(name))); err != nil {
		t.Fatal(err)
	}
	r := b.run(passphrase+"\n", "ls", "--json", v)
	if r.code != int(exitDamage) || count(r) != before-1 || !strings.Contains(r.stderr, "warning: damage") || !strings.Contains(r.stderr, "findings of damage") {
		t.Errorf("exit %d, %d names of %d\n%s", r.code, count(r), before, r.stderr)
	}
	r = b.run(passphrase+"\n", "export", v, "/", b.path("out"))
	if r.code != int(exitDamage) {
		t.Errorf("export: exit %d\n%s", r.code, r.stderr)
	}
}

// largestFile is the host file with the most blocks in a vault.
func largestFile(t *testing.T, v string) (name string) {
	t.Helper()
	most := int64(0)
	err := filepath.WalkDir(v, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if st.Blocks > most {
			most, name = st.Blocks, path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestMountedAtShorterPath: the note of a mount is read where that of an earlier one was longer.
func TestMountedAtShorterPath(t *testing.T) {
	b := newBox(t)
	v, _ := b.filledVault()
	b.ok("", "umount", b.mount(v, "a-much-longer-name-of-a-mount-point"))
	b.mount(v, "m")
	if got := b.ok("", "cat", v, "small").stdout; got != "small\n" {
		t.Errorf("through the mount: %q", got)
	}
}
