package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Real programs on a real mount. What a program leaves is remembered, the vault is unmounted and mounted again, and all of it must
// read back the same: see prog.checkRemount. Nothing may be logged on the way: see findings.
//
// Debian packages, for all of it to run:
//
//	git sqlite3 rsync tar gzip coreutils findutils diffutils grep sed patch make gcc binutils libc6-dev zip unzip vim-tiny perl-base python3 fio
//	acl e2fsprogs mount util-linux postgresql postgresql-contrib

const (
	programPath    = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	programTimeout = 10 * time.Minute // of one command that prints nothing: a hang must not look like a slow machine
)

// long reports whether the long versions are wanted.
func long() bool { return os.Getenv("COFFER_LONG") == "1" }

// longTier skips a test that has no quick version.
func longTier(t *testing.T, why string) {
	t.Helper()
	if !long() {
		t.Skipf("runs with COFFER_LONG=1 only: %s", why)
	}
}

// times is quick in the quick tier and slow in the long one.
func times(quick, slow int) int {
	if long() {
		return slow
	}
	return quick
}

// prog runs programs on a vault's mount.
type prog struct {
	*mounted
	env []string
}

// program mounts a vault for a test that needs some programs.
func program(t *testing.T, o options, names ...string) *prog {
	t.Helper()
	for _, name := range names {
		need(t, name)
	}
	m := mount(t, o)
	return &prog{mounted: m, env: cleanEnv(t)}
}

// need skips a test whose program is not installed.
func need(t *testing.T, name string) {
	t.Helper()
	for dir := range strings.SplitSeq(programPath, ":") {
		if unix.Access(filepath.Join(dir, name), unix.X_OK) == nil {
			return
		}
	}
	t.Skipf("%s is not installed: programs_test.go lists the Debian packages", name)
}

// cleanEnv is an environment in which nothing of the caller's changes what a program does.
func cleanEnv(t testing.TB) []string {
	return []string{
		"PATH=" + programPath, "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8", "TZ=UTC", "USER=root",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@example.org",
	}
}

// command prepares a program in a directory. The directory is entered by env(1), not between fork and exec: there this process could
// not answer its own mount.
func (p *prog) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/usr/bin/env", append([]string{"-C", dir, name}, args...)...)
	cmd.Dir = "/"
	cmd.Env = p.env
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// try runs a program and returns what it printed.
func (p *prog) try(dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	out := printed{silent: time.AfterFunc(programTimeout, func() { cancel(context.DeadlineExceeded) })}
	defer out.silent.Stop()
	cmd := p.command(ctx, dir, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), errors.Join(err, context.Cause(ctx)), tail(out.all.Bytes()))
	}
	return out.all.String(), err
}

// printed is what a program printed. Its time begins anew whenever it prints.
type printed struct {
	all    bytes.Buffer
	silent *time.Timer
}

func (o *printed) Write(b []byte) (int, error) {
	o.silent.Reset(programTimeout)
	return o.all.Write(b)
}

// run is try for programs that must succeed.
func (p *prog) run(dir, name string, args ...string) string {
	p.t.Helper()
	out, err := p.try(dir, name, args...)
	p.must(err)
	return out
}

// sh runs a script that stops at its first failure.
func (p *prog) sh(dir, script string) string {
	p.t.Helper()
	return p.run(dir, "bash", "-euo", "pipefail", "-c", script)
}

// equal fails the test where a program printed something else.
func (p *prog) equal(what, got, want string) {
	p.t.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		p.t.Errorf("%s: %s, want %s", what, tail([]byte(got)), tail([]byte(want)))
	}
}

// tail is the end of a program's output, where its error usually is.
func tail(out []byte) []byte {
	const most = 4000
	out = bytes.TrimSpace(out)
	return out[max(0, len(out)-most):]
}

// background is a program that runs beside the test and talks to it by lines.
type background struct {
	p     *prog
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // closed at the end of its output
	errs  bytes.Buffer
}

// background begins a program beside the test; it is killed when the test ends.
func (p *prog) background(dir, name string, args ...string) *background {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), programTimeout)
	b := &background{p: p, cmd: p.command(ctx, dir, name, args...), lines: make(chan string, 1<<16)}
	b.cmd.Stderr = &b.errs
	var err error
	b.stdin, err = b.cmd.StdinPipe()
	p.must(err)
	out, err := b.cmd.StdoutPipe()
	p.must(err)
	p.must(b.cmd.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(b.lines)
		for rest := ""; ; {
			buf := make([]byte, 4096)
			n, err := out.Read(buf)
			rest += string(buf[:n])
			for {
				line, after, ok := strings.Cut(rest, "\n")
				if !ok {
					break
				}
				b.lines <- line
				rest = after
			}
			if err != nil {
				return
			}
		}
	}()
	// Before the unmount, which is an earlier Cleanup and so runs after this one.
	p.t.(*testing.T).Cleanup(func() {
		cancel()
		<-read
		_ = b.cmd.Wait()
	})
	return b
}

// say sends a line.
func (b *background) say(line string) {
	b.p.t.Helper()
	if _, err := io.WriteString(b.stdin, line+"\n"); err != nil { // it says why
		b.end()
		b.p.must(err)
	}
}

// line waits for the next line.
func (b *background) line() string {
	b.p.t.Helper()
	l, ok := <-b.lines
	if !ok {
		_ = b.cmd.Wait()
		b.p.t.Fatalf("%v: ended early: %s", b.cmd.Args, tail(b.errs.Bytes()))
	}
	return l
}

// expect waits for a line that must be this one.
func (b *background) expect(want string) {
	b.p.t.Helper()
	if got := b.line(); got != want {
		b.p.t.Fatalf("%v: said %q, want %q: %s", b.cmd.Args, got, want, tail(b.errs.Bytes()))
	}
}

// end waits for a program that must succeed.
func (b *background) end() {
	b.p.t.Helper()
	b.stdin.Close()
	for range b.lines {
	}
	if err := b.cmd.Wait(); err != nil {
		b.p.t.Fatalf("%v: %v: %s", b.cmd.Args, err, tail(b.errs.Bytes()))
	}
}

// kill ends a program as a crash would. The program must be its own process, not a child of env(1), which execs.
func (b *background) kill() {
	b.p.t.Helper()
	if err := b.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		b.p.must(err)
	}
	for range b.lines {
	}
	_ = b.cmd.Wait()
}

// together runs the same program several times at once with its number as the last argument.
func (p *prog) together(n int, dir, name string, args ...string) {
	p.t.Helper()
	errs := make(chan error, n)
	for i := range n {
		go func() {
			_, err := p.try(dir, name, append(slices.Clone(args), fmt.Sprint(i))...)
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			p.t.Error(err)
		}
	}
}

// seen says what to leave out of a state.
type seen struct {
	noTimes bool // of copies that do not keep them
	noDirs  bool // times and link counts of directories
	noLinks bool // copies that split hard links
	noModes bool // and no owners
}

// state describes each name under dir in a line: content, mode, owner, size, mtime in ns, links with the first of the names, target.
func state(t testing.TB, dir string, o seen) map[string]string {
	t.Helper()
	all := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		line := fmt.Sprintf("%06o", st.Mode&unix.S_IFMT)
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if !o.noModes {
			line += fmt.Sprintf(" %04o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
		}
		if !o.noTimes && !(isDir && o.noDirs) {
			line += fmt.Sprintf(" %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		if !o.noLinks && !(isDir && o.noDirs) {
			line += fmt.Sprintf(" links=%d", st.Nlink)
			if _, ok := first[st.Ino]; !ok {
				first[st.Ino] = name
			}
			if !isDir && st.Nlink > 1 {
				line += " as=" + first[st.Ino]
			}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			sum, err := digest(path, st.Size)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %s", st.Size, sum)
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d -> %s", st.Size, target)
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" dev=%d", st.Rdev)
		}
		all[name] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// digest is the SHA-256 of a file, which must have the size that stat says.
func digest(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err == nil && n != size {
		err = fmt.Errorf("%s: stat says %d bytes, %d were read", path, size, n)
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

// sameState fails the test where two trees differ.
func (p *prog) sameState(what string, got, want map[string]string) {
	p.t.Helper()
	const most = 10
	shown := 0
	for _, name := range slices.Sorted(maps.Keys(merged(got, want))) {
		if got[name] == want[name] {
			continue
		}
		if shown++; shown > most {
			p.t.Errorf("%s: and more differences", what)
			return
		}
		p.t.Errorf("%s: %s\n  is   %s\n  want %s", what, name, orNone(got[name]), orNone(want[name]))
	}
}

func merged(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func orNone(s string) string {
	if s == "" {
		return "(nothing)"
	}
	return s
}

// checkRemount unmounts, mounts again, and compares everything with what was there before.
func (p *prog) checkRemount() {
	p.t.Helper()
	before := state(p.t, p.dir, seen{})
	p.remount()
	p.sameState("after the remount", state(p.t, p.dir, seen{}), before)
}

// twin runs a script in a directory of the mount and in one of the host, and wants the same tree from both.
func (p *prog) twin(name, script string, o seen) {
	p.t.Helper()
	ref := filepath.Join(p.t.(*testing.T).TempDir(), name)
	p.must(os.Mkdir(ref, 0o755))
	p.must(os.Mkdir(p.path(name), 0o755))
	want := p.sh(ref, script)
	got := p.sh(p.path(name), script)
	p.equal("output of "+name, got, want)
	p.sameState(name, state(p.t, p.path(name), o), state(p.t, ref, o))
}

// sample makes a tree with everything that copying programs care about. Sizes lie around those of frames, segments and groups.
func (p *prog) sample(dir string) {
	p.t.Helper()
	p.must(os.MkdirAll(dir, 0o755))
	p.run(dir, "python3", "-c", sampleTree, fmt.Sprint(times(30, 300)))
}

const sampleTree = `
import os, random, sys
r, asroot = random.Random(7), os.geteuid() == 0
n = int(sys.argv[1])
def put(name, data, mode=0o644):
    with open(name, 'wb') as f: f.write(data)
    os.chmod(name, mode & (0o7777 if asroot else 0o777)) # writing to its host file, a daemon that is not root's takes set-id bits away
sizes = [0, 1, 1000, 1536, 1537, 4095, 4096, 4097, 65535, 65536, 65537, 200000, 1 << 20, (1 << 20) + 1, 3000001]
for i, s in enumerate(sizes): put('size-%d' % s, r.randbytes(s), [0o644, 0o600, 0o755, 0o444, 0o4755, 0o2755][i % 6])
os.makedirs('deep/' + '/'.join('d%d' % i for i in range(20)))
for i in range(n):
    d = 'dir%d/sub%d' % (i % 5, i % 3)
    os.makedirs(d, exist_ok=True)
    put('%s/f%d' % (d, i), r.randbytes(r.randrange(9000)))
os.mkdir('empty'); os.mkdir('private', 0o700); os.mkdir('sticky'); os.chmod('sticky', 0o1777)
put('n' * 255, b'a long name'); put('naïve – 名前 \n newline', b'odd name'); put('-rf', b'dash'); put(' lead', b'')
os.symlink('size-4096', 'link'); os.symlink('/nowhere/at all', 'dangling'); os.symlink('t' * 4000, 'longlink')
os.link('size-65537', 'hard1'); os.link('size-65537', 'empty/hard2'); os.link('link', 'hardlink-to-symlink')
os.mkfifo('fifo')
size = (16 if n < 100 else 256) << 20
with open('sparse', 'wb') as f:
    for at in (0, 1 << 20, (5 << 20) + 123, size - 100000): f.seek(at); f.write(r.randbytes(5000))
    f.truncate(size)
with open('hole', 'wb') as f: f.truncate(10 << 20)
if asroot:
    for i, name in enumerate(sizes): os.chown('size-%d' % name, i, 1000 + i, follow_symlinks=False)
    os.chmod('size-65535', 0o4755); os.chmod('size-200000', 0o2755)
t = 1000000000
for root, dirs, files in os.walk('.', topdown=False):
    for name in sorted(files + dirs):
        t += 86399
        ns = t * 10**9 + r.randrange(10**9)
        os.utime(os.path.join(root, name), ns=(ns, ns), follow_symlinks=False)
os.utime('.', ns=(10**18, 10**18 + 1))
`
