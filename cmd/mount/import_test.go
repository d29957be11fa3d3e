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
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cmd/mount/bulk"
)

func (b *box) importInto(args ...string) bulk.Summary {
	b.t.Helper()
	r := b.ok(passphrase+"\n", append([]string{"import", "--json"}, args...)...)
	var s bulk.Summary
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// exported is a fresh copy of all that is in a vault.
func (b *box) exported(v string) string {
	b.t.Helper()
	out, err := os.MkdirTemp(b.dir, "exported-")
	if err != nil {
		b.t.Fatal(err)
	}
	b.export(passphrase+"\n", v, "/", out)
	return out
}

func noLeftovers(t *testing.T, v string) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(v, ".coffer/import")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf(".coffer/import is still there: %v", err)
	}
}

func TestImport(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	tree := b.mkdir("tree")
	fill(t, tree)
	unchanged(t, func() {
		var p bulk.Planned
		r := b.ok(passphrase+"\n", "import", "--dry-run", "--json", v, tree+"/.")
		if err := json.Unmarshal([]byte(r.stdout), &p); err != nil || p.Files != 8 || p.Skipped != 0 || p.Failed != 0 {
			t.Errorf("dry run: %+v, %v", p, err)
		}
	}, v, tree)
	if s := b.importInto(v, tree+"/."); s.Files != 7 || s.Failed != 0 || s.Directories != 3 || s.Skipped != 0 {
		t.Errorf("first import: %+v", s)
	}
	noLeftovers(t, v)
	sameTree(t, tree, b.exported(v))
	// The mount sees the same, clean.
	mp := b.mount(v, "plain")
	sameTree(t, tree, mp)
	b.ok("", "umount", mp)

	if s := b.importInto(v, tree+"/."); s.Files != 0 || s.Others != 0 || s.Skipped != 15 {
		t.Errorf("second import: %+v", s)
	}
	if s := b.importInto("--checksum", v, tree+"/."); s.Files != 0 || s.Failed != 0 {
		t.Errorf("import by checksum: %+v", s)
	}
	// What differs is replaced: size, mtime, and with --checksum a byte alone.
	st, err := os.Stat(filepath.Join(tree, "big"))
	if err != nil {
		t.Fatal(err)
	}
	changeByte(t, filepath.Join(tree, "big"), 5000)
	if err := os.Chtimes(filepath.Join(tree, "big"), st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "empty"), []byte("no more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := b.importInto(v, tree+"/."); s.Files != 1 {
		t.Errorf("import of one change: %+v", s)
	}
	if s := b.importInto("--checksum", v, tree+"/."); s.Files != 1 || s.Others != 1 {
		t.Errorf("import of one byte, of a file with two names: %+v", s)
	}
	sameTree(t, tree, b.exported(v))

	// Elsewhere in the vault.
	b.importInto(v, filepath.Join(tree, "small"), "sub/renamed")
	b.importInto(v, filepath.Join(tree, "sub"), filepath.Join(tree, "link"), "/sub/deep")
	if got := b.ok(passphrase+"\n", "cat", v, "sub/renamed").stdout; got != "small\n" {
		t.Errorf("renamed: %q", got)
	}
	if got := b.ok(passphrase+"\n", "cat", v, "sub/deep/sub/deep/file").stdout; !bytes.Equal([]byte(got), randomBytes(8, 70_000)) {
		t.Error("nested: other bytes")
	}
}

func TestImportErrors(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	tree := b.mkdir("tree")
	fill(t, tree)
	in := passphrase + "\n"
	b.fails(exitUsage, "takes at least 2 arguments and got 1", "", "import", v)
	b.fails(exitUsage, "cannot import", "", "import", v, b.path("nope"))
	b.fails(exitUsage, "the vault is in it", "", "import", v, b.dir)
	b.fails(exitUsage, "is in the vault", "", "import", v, filepath.Join(v, ".coffer"))
	b.fails(exitOther, "no such file", in, "import", v, tree, "a/b")
	b.fails(exitUsage, "not a directory", in, "import", v, tree, tree, "nowhere")
	b.fails(exitUsage, "no such geometry", "", "import", "--segment-size", "1M", "--frame-size", "4K", v, tree)
	b.fails(exitUsage, "one more to import", in, "import", v, tree, "tree")
	b.fails(exitPassphrase, "wrong passphrase", "wrong\n", "import", v, tree)
	b.fails(exitVaultDir, "not a coffer vault", in, "import", b.mkdir("no-vault"), tree)
	b.importInto(v, tree)
	// A directory where a file stands, a file where a directory does, a socket: told, and the rest is copied.
	other := b.mkdir("other/tree")
	for _, name := range []string{"sub", "fresh"} {
		if err := os.WriteFile(filepath.Join(other, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.mkdir("other/tree/small")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(other, "socket")}); err != nil {
		t.Fatal(err)
	}
	r := b.run(in, "import", v, other)
	if r.code != int(exitOther) || !strings.Contains(r.stderr, "3 objects were not copied") || !strings.Contains(r.stderr, "a socket or a device") || strings.Count(r.stderr, "stands in the way") != 2 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if got := b.ok(in, "cat", v, "tree/fresh").stdout; got != "fresh" {
		t.Errorf("the rest: %q", got)
	}
	noLeftovers(t, v)
}

func TestImportDeletesSource(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	tree := b.mkdir("tree")
	fill(t, tree)
	b.importInto(v, tree+"/.")
	keep := b.exported(v)
	b.importInto("--delete-source", v, tree+"/.") // finished files are compared, and go too
	if left, err := os.ReadDir(tree); err != nil || len(left) != 0 {
		t.Errorf("still there: %v, %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(tree, "fresh"), randomBytes(9, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	b.importInto("--delete-source", v, filepath.Join(tree, "fresh"), "/sub")
	if _, err := os.Lstat(filepath.Join(tree, "fresh")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a new file is still there: %v", err)
	}
	// What is not in the vault as it is stays, and so do the directories above it.
	other := b.mkdir("other/sub")
	if err := os.Symlink("elsewhere", filepath.Join(other, "link")); err != nil {
		t.Fatal(err)
	}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	if err := unix.Bind(sock, &unix.SockaddrUnix{Name: filepath.Join(other, "socket")}); err != nil {
		t.Fatal(err)
	}
	gone := b.mkdir("other/sub/gone")
	r := b.run(passphrase+"\n", "import", "--delete-source", v, other, "/other")
	if r.code != int(exitOther) || !strings.Contains(r.stderr, "1 objects were not copied") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if left, err := os.ReadDir(other); err != nil || len(left) != 1 || left[0].Name() != "socket" {
		t.Errorf("left of %s (%s among it): %v, %v", other, gone, left, err)
	}
	out := b.exported(v)
	if got := readlink(t, filepath.Join(out, "other/link")); got != "elsewhere" {
		t.Errorf("the link: %q", got)
	}
	if got, err := os.ReadFile(filepath.Join(out, "sub/fresh")); err != nil || !bytes.Equal(got, randomBytes(9, 100_000)) {
		t.Errorf("the copy: %d bytes, %v", len(got), err)
	}
	if got, err := os.ReadFile(filepath.Join(out, "big")); err != nil || !bytes.Equal(got, mustRead(t, filepath.Join(keep, "big"))) {
		t.Errorf("the copy: %d bytes, %v", len(got), err)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestImportKilled kills an import at random moments until one comes through. After each of them only whole files show; and the large one goes on
// where it was.
func TestImportKilled(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	tree := b.mkdir("tree")
	fill(t, tree)
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(tree, "sub", fmt.Sprint("f", i)), randomBytes(byte(i), i*7_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	large, err := os.Create(filepath.Join(tree, "zz large"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		if _, err := large.Write(randomBytes(byte(100+i), 5<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := large.Truncate(180 << 20); err != nil {
		t.Fatal(err)
	}
	large.Close()
	key := b.path("key")
	b.ok(passphrase+"\n", "key", "add", "--keyfile", key, v)
	seed := uint64(time.Now().UnixNano())
	rng := mrand.New(mrand.NewPCG(seed, 1))
	kills, resumed := 0, false
	for {
		cmd := b.command(context.Background(), "import", "--progress", "none", "--json", "--keyfile", key, v, tree+"/.")
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(20+rng.IntN(150+60*kills))*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		err := cmd.Wait()
		timer.Stop()
		if err == nil {
			var s bulk.Summary
			if err := json.Unmarshal(out.Bytes(), &s); err != nil {
				t.Fatal(err)
			}
			resumed = s.Bytes < 140<<20
			break
		}
		if cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("seed %d: exit %d", seed, cmd.ProcessState.ExitCode())
		}
		kills++
		if kills > 60 {
			t.Fatal("it never comes through")
		}
		if kills%4 != 1 {
			continue
		}
		got := b.exported(v)
		_ = filepath.WalkDir(got, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			rel, _ := filepath.Rel(got, path)
			if !bytes.Equal(mustRead(t, path), mustRead(t, filepath.Join(tree, rel))) {
				t.Errorf("seed %d: %s shows and is not whole", seed, rel)
			}
			return nil
		})
		os.RemoveAll(got)
	}
	t.Logf("%d kills; the large file was gone on with: %v", kills, resumed)
	noLeftovers(t, v)
	b.ok(passphrase+"\n", "verify", v)
	sameTree(t, tree, b.exported(v))
}

// largeSource writes a file of size random bytes, a multiple of 5 MiB.
func largeSource(t *testing.T, path string, size int) {
	t.Helper()
	const piece = 5 << 20
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range size / piece {
		if _, err := f.Write(randomBytes(byte(i), piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestImportGoesOn stops an import in the middle of a large file, again and again at the same place, and lets it go on: with the file as it was, and changed.
func TestImportGoesOn(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	const size = 150 << 20
	src := b.path("source")
	largeSource(t, src, size)
	// A limit of the host file's length stops it: ulimit -f, in blocks of 1024 bytes.
	stop := func(kib int, shows string) {
		t.Helper()
		cmd := b.command(context.Background())
		cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", fmt.Sprintf(`ulimit -f %d; exec %s import --progress none %s %s`, kib, program, v, src)}
		r := b.finish(cmd, passphrase+"\n")
		if r.code == 0 {
			t.Fatalf("it was not stopped\n%s", r.stderr)
		}
		if got := b.ok(passphrase+"\n", "ls", v).stdout; got != shows {
			t.Fatalf("in the vault: %q", got)
		}
	}
	for range 2 {
		stop(120<<10, "")
	}
	const frame = 32 << 10
	if s := b.importInto(v, src); s.Files != 1 || s.Bytes > size-56<<20 {
		t.Errorf("it did not go on: %+v", s)
	} else if (s.Frames-1)*frame != s.Bytes || s.ReusedFrames*frame != s.Reused || s.Bytes+s.Reused != size || (s.Segments-1)*32 != s.Frames-1 || // one was opened, to try it
		s.VaultBytes < s.Bytes || s.VaultBytes > s.Bytes+s.Bytes/100 || s.Reading <= 0 || s.Sealing <= 0 || s.Writing <= 0 || s.Syncing <= 0 {
		t.Errorf("the summary: %+v", s)
	}
	noLeftovers(t, v)
	out := b.exported(v)
	if !bytes.Equal(mustRead(t, filepath.Join(out, "source")), mustRead(t, src)) {
		t.Error("other bytes")
	}
	os.RemoveAll(out)

	// The source changes while the import is stopped: it starts over.
	changeByte(t, src, 77)
	stop(120<<10, "source\n") // the old one
	changeByte(t, src, 78)
	if s := b.importInto(v, src); s.Files != 1 || s.Bytes != size {
		t.Errorf("a changed source: %+v", s)
	}
	noLeftovers(t, v)
	if !bytes.Equal(mustRead(t, filepath.Join(b.exported(v), "source")), mustRead(t, src)) {
		t.Error("other bytes")
	}
}

// stopped waits until an import into v has begun, and stops its process there; false where it has come to its end before.
func stopped(t *testing.T, v string, p *os.Process) bool {
	t.Helper()
	under := func() bool {
		_, err := os.Stat(filepath.Join(v, ".coffer/import"))
		return err == nil
	}
	for stat := filepath.Join("/proc", fmt.Sprint(p.Pid), "stat"); ; time.Sleep(time.Millisecond) {
		if strings.Contains(readFile(t, stat), ") Z ") {
			return false
		}
		if !under() {
			continue
		}
		noError(t, p.Signal(syscall.SIGSTOP))
		for !strings.Contains(readFile(t, stat), ") T ") && !strings.Contains(readFile(t, stat), ") Z ") {
			time.Sleep(time.Millisecond)
		}
		return under()
	}
}

// TestImportTwice: a second import is refused and names the first.
func TestImportTwice(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	src := b.path("source")
	if err := os.WriteFile(src, randomBytes(1, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	key := b.path("key")
	b.ok(passphrase+"\n", "key", "add", "--keyfile", key, v)
	var cmd *exec.Cmd
	var want string
	for try := 0; ; try++ { // this process may be too slow
		name := fmt.Sprint("source", try)
		want += name + "\n"
		cmd = b.command(context.Background(), "import", "--progress", "none", "--keyfile", key, v, src, name)
		noError(t, cmd.Start())
		if stopped(t, v, cmd.Process) {
			break
		}
		_ = cmd.Process.Signal(syscall.SIGCONT)
		noError(t, cmd.Wait())
		if try == 9 {
			t.Fatal("no import can be stopped")
		}
	}
	r := b.fails(exitInUse, fmt.Sprintf("pid %d", cmd.Process.Pid), "", "import", v, src)
	if !strings.Contains(r.stderr, fmt.Sprintf("wait until process %d has ended", cmd.Process.Pid)) {
		t.Errorf("hint: %s", r.stderr)
	}
	b.fails(exitInUse, "it is written to without a mount (", "", "ls", v)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := b.ok(passphrase+"\n", "ls", v).stdout; got != want {
		t.Errorf("ls: %q", got)
	}
}

// TestImportAsUser: a user who is not root keeps read-only modes, sealed where the host cannot have them, and gets them back.
func TestImportAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	b := newBox(t)
	b.cred = userCred()
	for d := b.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(b.dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	v, _ := b.newVault("vault")
	tree := b.mkdir("tree")
	fill(t, tree)
	if err := os.Chmod(filepath.Join(tree, "small"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(tree, "sub/deep"), 0o555); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := b.importInto(v, tree+"/."); s.Failed != 0 || s.Files != 7 {
		t.Errorf("import: %+v", s)
	}
	out := b.path("out")
	for range 2 { // into what is there, too
		b.ok(passphrase+"\n", "export", "--checksum", v, "/", out)
		sameTree(t, tree, out)
	}
	if s := b.importInto(v, tree+"/."); s.Files != 0 || s.Failed != 0 {
		t.Errorf("second import: %+v", s)
	}
}

// TestProgressAtTerminal: a bar that is gone at the end, and a summary; and what is shown of work of which nobody knows how much there is.
func TestProgressAtTerminal(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	const size = 200 << 20
	key, src := b.path("key"), b.path("source")
	b.ok(passphrase+"\n", "key", "add", "--keyfile", key, v)
	largeSource(t, src, size)
	tm := b.start("import", "--keyfile", key, v, src)
	stopped(t, v, tm.cmd.Process)
	time.Sleep(2 * barEvery) // long enough for a bar
	_ = tm.cmd.Process.Signal(syscall.SIGCONT)
	if code := tm.wait(); code != 0 {
		t.Fatalf("exit %d\n%s", code, tm.text())
	}
	text := tm.text()
	if !strings.Contains(text, fmt.Sprintf("1 files copied, %d bytes", size)) {
		t.Errorf("no summary: %q", text)
	}
	if !strings.Contains(text, "source") || !strings.Contains(text, "% |") { // the rate comes with the second one, which a fast host does not see
		t.Errorf("no bar: %q", text)
	}
	for _, args := range [][]string{{"verify", "--keyfile", key, v}, {"scrub", v}} {
		tm := b.start(args...)
		if code := tm.wait(); code != 0 || tm.text() != "" && !strings.HasSuffix(tm.text(), "\x1b[2K\r") {
			t.Errorf("%s: exit %d\n%q", args[0], code, tm.text())
		}
		r := b.ok("", append(args, "--progress", "json")...)
		lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
		var last progressReport
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Files < 1 || last.Bytes < size || last.FilesTotal != 0 || last.SecondsLeft != 0 {
			t.Errorf("%s: %+v, %v", args[0], last, err)
		}
		b.fails(exitUsage, "unknown kind of progress", "", append(args, "--progress", "loud")...)
	}
}

// smallDisk mounts a filesystem of so many MiB; grow makes it larger.
func (b *box) smallDisk(name string, mib int) (dir string, grow func(mib int)) {
	b.t.Helper()
	dir = b.mkdir(name)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		b.t.Skipf("cannot mount a tmpfs: %v", err)
	}
	b.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir, func(mib int) {
		b.t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%dm", mib)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestFullDisks fills the vault's host under an import, and the destination under an export: each says so, leaves no half file under a name, and goes on when
// there is room.
func TestFullDisks(t *testing.T) {
	b := newBox(t)
	tree := b.mkdir("tree")
	fill(t, tree)
	for i := range 30 {
		if err := os.WriteFile(filepath.Join(tree, "sub", fmt.Sprint("f", i)), randomBytes(byte(i), 400_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, grow := b.smallDisk("host", 8)
	v := filepath.Join(host, "vault")
	b.ok(passphrase+"\n", append([]string{"init", "--recovery-file", b.path("rk"), v}, cheap...)...)
	for range 2 { // twice at the same place
		r := b.run(passphrase+"\n", "import", v, tree+"/.")
		if r.code != int(exitHostFull) || !strings.Contains(r.stderr, "no space left") || !strings.Contains(r.stderr, "hint: make room") {
			t.Fatalf("import: exit %d\n%s", r.code, r.stderr)
		}
	}
	grow(64)
	b.importInto(v, tree+"/.")
	noLeftovers(t, v)

	out, growOut := b.smallDisk("out", 8)
	for range 2 {
		r := b.run(passphrase+"\n", "export", v, "/", out)
		if r.code != int(exitHostFull) || !strings.Contains(r.stderr, "the destination is full") {
			t.Fatalf("export: exit %d\n%s", r.code, r.stderr)
		}
	}
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(out, path)
		if !bytes.Equal(mustRead(t, path), mustRead(t, filepath.Join(tree, rel))) {
			t.Errorf("%s is not whole", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	growOut(64)
	b.export(passphrase+"\n", v, "/", out)
	sameTree(t, tree, out)
}

// TestExportFullGoesOn fills the destination within a large file: its beginning stays, and is gone on with when there is room.
func TestExportFullGoesOn(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	src := b.path("source")
	if err := os.WriteFile(src, bytes.Repeat(randomBytes(1, 5<<20), 24), 0o600); err != nil {
		t.Fatal(err)
	}
	b.importInto(v, src)
	out, grow := b.smallDisk("out", 100)
	for range 2 { // twice at the same place
		r := b.run(passphrase+"\n", "export", v, "/", out)
		if r.code != int(exitHostFull) || !strings.Contains(r.stderr, "the destination is full") {
			t.Fatalf("exit %d\n%s", r.code, r.stderr)
		}
		if _, err := os.Lstat(filepath.Join(out, "source")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("half a file has its name: %v", err)
		}
	}
	grow(200)
	if s := b.export(passphrase+"\n", v, "/", out); s.Files != 1 || s.Reused < 32<<20 || s.Bytes+s.Reused != 120<<20 {
		t.Errorf("it did not go on: %+v", s)
	}
	if all, err := os.ReadDir(out); err != nil || len(all) != 1 || !bytes.Equal(mustRead(t, filepath.Join(out, "source")), mustRead(t, src)) {
		t.Errorf("other bytes, or leftovers: %v, %v", all, err)
	}
}
