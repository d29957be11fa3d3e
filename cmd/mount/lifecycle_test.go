package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
)

// gone waits until nothing is mounted at mp and its daemon has released the vault.
func (b *box) gone(v, mp string) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, mounted, err := mountAt(mp)
		if err != nil {
			b.t.Fatal(err)
		}
		if !mounted && !peekLock(v).Writer {
			break
		}
		if time.Now().After(end) {
			b.t.Fatalf("still mounted or in use: %+v", peekLock(v))
		}
	}
	if clean, ok := peekState(v); !clean || !ok {
		b.t.Error("the vault is not clean")
	}
}

func TestIdle(t *testing.T) {
	needFUSE(t, nil)
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mkdir("plain")
	b.fails(exitUsage, "negative", "", "mount", "--idle", "-5m", v, mp)
	b.ok(passphrase+"\n", "mount", "--idle", "300ms", v, mp)
	b.gone(v, mp)

	// In use: it stays for many times as long. An open file sends no request; a working directory is no open file.
	f, after := b.openBeforeIdle(v, mp)
	stays := func(why string) {
		t.Helper()
		for range 10 {
			time.Sleep(after)
			if m, ok, err := mountAt(mp); err != nil || !ok || m.fsType != fsType {
				t.Fatalf("unmounted in spite of %s: %v", why, err)
			}
		}
	}
	stays("an open file")
	stand := exec.Command("sleep", "100")
	stand.Dir = mp
	if err := stand.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	stays("a working directory")
	_ = stand.Process.Kill()
	_ = stand.Wait()
	b.gone(v, mp)
	b.mount(v, "plain")
	if got := readFile(t, filepath.Join(mp, "file")); got != "content" {
		t.Errorf("read %q", got)
	}
}

// openBeforeIdle mounts with --idle and opens a new file. On a busy machine the mount may be faster and be gone: then with a longer time.
func (b *box) openBeforeIdle(v, mp string) (*os.File, time.Duration) {
	b.t.Helper()
	for after := 50 * time.Millisecond; after < time.Minute; after *= 2 {
		b.ok(passphrase+"\n", "mount", "--idle", after.String(), v, mp)
		f, err := os.OpenFile(filepath.Join(mp, "file"), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			b.t.Fatal(err)
		}
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			b.t.Fatal(err)
		}
		if st.Type == unix.FUSE_SUPER_MAGIC {
			return f, after
		}
		f.Close()
		if err := os.Remove(f.Name()); err != nil {
			b.t.Fatal(err)
		}
		b.gone(v, mp)
	}
	b.t.Fatal("no file could be opened within a minute")
	return nil, 0
}

func TestIdler(t *testing.T) {
	var quiet time.Duration
	var used bool
	i := idler{after: time.Minute, quiet: func() time.Duration { return quiet }, inUse: func() bool { return used }}
	for _, c := range []struct {
		quiet time.Duration
		used  bool
		want  time.Duration
	}{
		{0, false, time.Minute}, {20 * time.Second, false, 40 * time.Second}, {20 * time.Second, true, 40 * time.Second},
		{time.Minute, true, time.Minute}, {time.Hour, true, time.Minute}, {time.Minute, false, 0}, {time.Hour, false, 0},
	} {
		quiet, used = c.quiet, c.used
		if got := i.wait(); got != c.want {
			t.Errorf("quiet for %v, used %v: wait %v, want %v", c.quiet, c.used, got, c.want)
		}
	}
}

func TestLazyUnmount(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	pid := b.daemon(mp)
	f, err := os.Create(filepath.Join(mp, "file"))
	if err != nil {
		t.Fatal(err)
	}
	b.fails(exitBusy, "open file", "", "umount", mp)
	r := b.ok("", "umount", "--lazy", mp)
	for _, want := range []string{"detached", "(pid " + strconv.Itoa(os.Getpid()) + ", open file)", "its daemon (pid " + strconv.Itoa(pid) + ") ends when"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("no %q in %q", want, r.stderr)
		}
	}
	if _, ok, _ := mountAt(mp); ok {
		t.Error("still mounted")
	}
	b.fails(exitInUse, "kill "+strconv.Itoa(pid)+"\n", passphrase+"\n", "mount", v, mp)
	if _, err := f.WriteString("written after"); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	b.gone(v, mp)
	b.mount(v, "plain")
	if got := readFile(t, filepath.Join(mp, "file")); got != "written after" {
		t.Errorf("read %q", got)
	}
	// Nobody is in: it is as without --lazy.
	if r := b.ok("", "umount", "--lazy", mp); r.stderr != "" || peekLock(v).Writer {
		t.Errorf("returned before the vault was released: %q", r.stderr)
	}
}

// Who holds a vault by a mount that is not seen may be on its way out, and a process with the number of another daemon is not to be ended.
func TestUnseenHolder(t *testing.T) {
	var e *exitError
	if err := inUse(&vault.InUseError{Holder: vault.Holder{PID: os.Getpid(), Mountpoint: "/nowhere"}}); !errors.As(err, &e) {
		t.Fatal(err)
	}
	if e.code != exitInUse || !strings.Contains(e.hint, "where it was just unmounted, wait") || strings.Contains(e.hint, "kill") {
		t.Errorf("code %d, %q", e.code, e.hint)
	}
}

// A mount in a mount keeps it busy, and no process does.
func TestBusyWithMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	inner := b.mkdir("plain/inner")
	if err := unix.Mount("none", inner, "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	b.fails(exitBusy, "in use by what is mounted on "+inner+"\n", "", "umount", mp)
	if err := unix.Unmount(inner, 0); err != nil {
		t.Fatal(err)
	}
	b.ok("", "umount", mp)
}

// A daemon that hangs can be unmounted, and is not taken for dead: nothing waits for an answer of it.
func TestHangingDaemon(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	hang := func() (goOn func()) {
		pid := b.daemon(mp)
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		tooLong := time.AfterFunc(20*time.Second, func() {
			t.Error("it is waited for")
			_ = unix.Kill(pid, unix.SIGCONT)
		})
		return func() {
			tooLong.Stop()
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	}
	goOn := hang()
	b.fails(exitInUse, "still writes to the vault", "", "umount", "--timeout", "1ms", mp)
	goOn()
	b.gone(v, mp)

	b.mount(v, "plain")
	goOn = hang()
	if isDead(mp) {
		t.Error("it is taken for dead")
	}
	goOn()
	for tries := 3; ; tries-- { // on a slow machine it may take longer without that reason
		goOn = hang()
		start := time.Now()
		b.fails(exitDaemon, "does not answer", "", "status", mp)
		took := time.Since(start)
		goOn()
		if took < statusTimeout+deadPatience {
			break
		}
		if tries == 1 {
			t.Fatal("who listened, but did not answer, was asked by the mount too")
		}
	}
	b.ok("", "umount", mp)
}

// umount(8) returns when the kernel has let go, and the daemon may still be at work: who mounts again at once waits for it.
func TestMountAfterUnmount(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	for range 5 {
		mp := b.mount(v, "plain")
		noError(t, os.WriteFile(filepath.Join(mp, "file"), bytes.Repeat([]byte("x"), 4<<20), 0o644))
		if out, err := exec.Command("fusermount3", "-u", mp).CombinedOutput(); err != nil {
			t.Fatalf("fusermount3: %v: %s", err, out)
		}
	}
	b.gone(v, b.path("plain"))
}

// What cannot be brought to the host is told by umount, too: programs seldom look at what close answers. A host without room for a journal takes no changes.
func TestUnmountOfFullHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
	b := newBox(t)
	b.warnings = append(b.warnings, unix.ENOSPC.Error())
	b.smallDisk("host", 4)
	v, _ := b.newVault("host/vault")
	mp := b.mount(v, "plain")
	writeFile(t, filepath.Join(mp, "file"), "kept")
	b.ok("", "umount", mp)
	b.mount(v, "plain")
	f, err := os.OpenFile(filepath.Join(mp, "file"), os.O_WRONLY, 0)
	noError(t, err)
	_, err = f.WriteString("lost")
	noError(t, err)
	if err := f.Close(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("close: %v", err)
	}
	b.fails(exitOther, "could not bring everything to the host", "", "umount", mp)
	b.mount(v, "plain")
	if got := readFile(t, filepath.Join(mp, "file")); got != "kept" {
		t.Errorf("the file has %q", got)
	}
	b.ok("", "umount", mp)
}

// The kernel gives the device number of a mount that is gone to the next one, though the daemon of the first does not notice, as on a host that hangs: who asks
// and who gives orders reaches the right one.
func TestOrdersAfterUnmount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to unmount what does not answer")
	}
	b := newBox(t)
	first, _ := b.newVault("first")
	second, _ := b.newVault("second")
	mp, next := b.mount(first, "plain"), b.path("next")
	pid := b.daemon(mp)
	noError(t, unix.Kill(pid, unix.SIGSTOP))
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGCONT) }) // or it stays for good where the test fails
	noError(t, unix.Unmount(mp, 0))
	b.mount(second, "next")
	if r := b.status(next); r.Vault != second {
		t.Errorf("the daemon of %s answers for %s", r.Vault, second)
	}
	b.ok("", "freeze", next)
	b.ok("", "thaw", next)
	noError(t, unix.Kill(pid, unix.SIGCONT))
	b.gone(first, mp)
}
