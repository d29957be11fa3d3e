package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// program is the real program, built once; the tests run it as a user does.
var program string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "age-plugin-"+testPlugin {
		os.Exit(runTestPlugin())
	}
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	// World-accessible, for the tests that run it as another user.
	dir, err := os.MkdirTemp("", "coffer-bin-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "coffer")
	args := []string{"build", "-buildvcs=false", "-o", program} // git may refuse a checkout of another user
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, ".")...)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "go build:", err)
		return 1
	}
	return m.Run()
}

// passphrase is that of the tests' vaults.
const passphrase = "correct horse"

// raceOptions are for the program where it is built with the race detector, which sleeps a second at its end otherwise.
const raceOptions = "GORACE=halt_on_error=1 atexit_sleep_ms=0"

// cheap makes key derivation fast: what is tested here is not its strength.
var cheap = []string{"--kdf-memory", "8", "--kdf-time", "1"}

// patience is how long one run of the program may take: a hang must not look like a slow machine.
const patience = 10 * time.Minute

// box is a place for one test: a home, a state directory, and a way to run the program in them.
type box struct {
	t    *testing.T
	dir  string
	cred *syscall.Credential // nil: as the test itself
	env  []string            // in addition

	warnings []string // what the daemon may warn of
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir()}
	// Registered after TempDir's own clean-up, so it runs before it.
	t.Cleanup(func() {
		b.unmountAll()
		b.checkLog()
	})
	return b
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

func (b *box) mkdir(name string) string {
	b.t.Helper()
	p := b.path(name)
	if err := os.MkdirAll(p, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if b.cred != nil {
		if err := os.Chown(p, int(b.cred.Uid), int(b.cred.Gid)); err != nil {
			b.t.Fatal(err)
		}
	}
	return p
}

func (b *box) write(name, content string) string {
	b.t.Helper()
	p := b.path(name)
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return p
}

// unmountAll takes away what a failed test left mounted.
func (b *box) unmountAll() {
	all, err := readMounts()
	if err != nil {
		b.t.Error(err)
	}
	for _, m := range all {
		if strings.HasPrefix(m.mountpoint, b.dir+"/") {
			if m.fsType == fsType {
				b.t.Errorf("%s was still mounted", m.mountpoint)
			}
			_ = unix.Unmount(m.mountpoint, unix.MNT_DETACH)
		}
	}
}

// checkLog fails the test for every warning that a daemon logged.
func (b *box) checkLog() {
	log, err := os.ReadFile(b.path("state/coffer/coffer.log"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(log)) {
		bad := strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") ||
			strings.Contains(line, "DATA RACE") || strings.Contains(line, "panic")
		if bad && !slices.ContainsFunc(b.warnings, func(w string) bool { return strings.Contains(line, w) }) {
			b.t.Errorf("the daemon logged: %s", line)
		}
	}
	if b.t.Failed() {
		b.t.Logf("log:\n%s", log)
	}
}

// result is one run of the program.
type result struct {
	stdout, stderr string
	code           int
}

func (b *box) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = b.dir
	cmd.Env = append([]string{
		"HOME=" + b.dir, "XDG_STATE_HOME=" + b.path("state"), "PATH=" + os.Getenv("PATH"),
		raceOptions,
	}, b.env...)
	// A session of its own: no controlling terminal, whatever the tests run under.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: b.cred}
	return cmd
}

// run runs the program with stdin as its standard input.
func (b *box) run(stdin string, args ...string) result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := b.command(ctx, args...)
	return b.finish(cmd, stdin)
}

func (b *box) finish(cmd *exec.Cmd, stdin string) result {
	b.t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatalf("%v: %v\n%s", cmd.Args, err, errOut.String())
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// ok runs the program and fails the test unless it succeeds.
func (b *box) ok(stdin string, args ...string) result {
	b.t.Helper()
	r := b.run(stdin, args...)
	if r.code != 0 {
		b.t.Fatalf("coffer %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r
}

// fails runs the program and checks code and shape of the error: "coffer: …" with want in it, and a hint.
func (b *box) fails(code Code, want, stdin string, args ...string) result {
	b.t.Helper()
	r := b.run(stdin, args...)
	b.checkFailure(r, code, want, args...)
	return r
}

func (b *box) checkFailure(r result, code Code, want string, args ...string) {
	b.t.Helper()
	name := "coffer " + strings.Join(args, " ")
	if r.code != int(code) {
		b.t.Errorf("%s: exit %d, want %d\n%s", name, r.code, code, r.stderr)
	}
	if r.stdout != "" {
		b.t.Errorf("%s: wrote to standard output: %s", name, r.stdout)
	}
	lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
	if len(lines) < 2 || len(lines) > 3 || !strings.HasPrefix(lines[len(lines)-2], "coffer: ") || !strings.HasPrefix(lines[len(lines)-1], "hint: ") {
		b.t.Errorf("%s: want an error line and a hint, got:\n%s", name, r.stderr)
	}
	if !strings.Contains(r.stderr, want) {
		b.t.Errorf("%s: want %q in:\n%s", name, want, r.stderr)
	}
}

// newVault makes a vault with a cheap key derivation and returns its path and recovery key.
func (b *box) newVault(name string) (path, recovery string) {
	b.t.Helper()
	path, file := b.path(name), b.path(name+".recovery")
	b.ok(passphrase+"\n", append([]string{"init", "--recovery-file", file, path}, cheap...)...)
	key, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	return path, strings.TrimSpace(string(key))
}

// mount mounts and returns the mount point; the clean-up unmounts it.
func (b *box) mount(vault, mountpoint string, flags ...string) string {
	b.t.Helper()
	needFUSE(b.t, b.cred)
	mp := b.mkdir(mountpoint)
	b.ok(passphrase+"\n", append([]string{"mount", vault, mp}, flags...)...)
	b.t.Cleanup(func() {
		if m, ok, err := mountAt(mp); err == nil && ok && m.fsType == fsType {
			b.ok("", "umount", mp)
		}
	})
	return mp
}

// needFUSE skips where no mount is possible at all, and says why.
func needFUSE(t *testing.T, cred *syscall.Credential) {
	t.Helper()
	if cred == nil && os.Geteuid() == 0 {
		if _, err := os.Stat("/dev/fuse"); err != nil {
			t.Skipf("no mount is possible here: %v", err)
		}
		return
	}
	st, err := os.Stat("/dev/fuse")
	if err != nil {
		t.Skipf("no mount is possible here: %v", err)
	}
	if st.Mode().Perm()&0o006 != 0o006 {
		t.Skipf("/dev/fuse is %v: users cannot open it (chmod 666 /dev/fuse, as udev does)", st.Mode())
	}
	if _, err := fusermountPath(); err != nil {
		t.Skip("fusermount3 is not installed: a normal user cannot mount")
	}
}

// snapshot describes everything below the given directories, to see that nothing changed.
func snapshot(t *testing.T, roots ...string) string {
	t.Helper()
	var s strings.Builder
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && path == root {
				fmt.Fprintf(&s, "%s: missing\n", path)
				return nil
			}
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			fmt.Fprintf(&s, "%s %o %d:%d %d %d.%09d", path, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
			if d.Type().IsRegular() && st.Size < 1<<20 {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				fmt.Fprintf(&s, " %x", sha256.Sum256(b))
			}
			s.WriteString("\n")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s.String()
}

// unchanged runs do and checks that nothing below the directories changed.
func unchanged(t *testing.T, do func(), roots ...string) {
	t.Helper()
	before := snapshot(t, roots...)
	do()
	if after := snapshot(t, roots...); after != before {
		t.Errorf("something changed on disk.\nbefore:\n%s\nafter:\n%s", before, after)
	}
}
