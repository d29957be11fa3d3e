package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMountCreate(t *testing.T) {
	needFUSE(t, nil)
	b := newBox(t)
	v, mp := b.path("deep/down/vault"), b.path("other/plain")
	create := append([]string{"mount", "--create", "--recovery-file", b.path("key"), v, mp}, cheap...)
	r := b.ok(passphrase+"\n", create...)
	if r.stdout != "" {
		t.Errorf("wrote to standard output: %q", r.stdout)
	}
	writeFile(t, filepath.Join(mp, "file"), "content")
	if out, err := exec.Command("grep", "-r", "content", v).CombinedOutput(); err == nil {
		t.Errorf("the vault holds plaintext: %s", out)
	}
	b.ok("", "umount", mp)
	if _, err := os.Stat(filepath.Join(mp, "file")); err == nil {
		t.Error("still mounted")
	}
	if info := b.ok("", "info", v).stdout; !strings.Contains(info, "clean     yes") || !strings.Contains(info, "in use    no") {
		t.Errorf("after umount info says:\n%s", info)
	}

	// Once more: --create leaves what is there alone.
	r = b.ok(passphrase+"\n", append([]string{"mount", "--create", v, mp}, cheap...)...)
	if strings.Contains(r.stderr, "recovery") {
		t.Errorf("a vault was made again: %s", r.stderr)
	}
	if got := readFile(t, filepath.Join(mp, "file")); got != "content" {
		t.Errorf("read back %q", got)
	}
	b.ok("", "umount", mp)
}

// What --create made is gone again when it fails, but for a vault that exists.
func TestMountCreateFails(t *testing.T) {
	b := newBox(t)
	unchanged(t, func() {
		b.fails(exitEmpty, "passphrase is empty", "\n", "mount", "--create", b.path("v"), b.path("m/n"))
		b.fails(exitUsage, "reading only", "x\n", "mount", "--create", "-o", "ro", b.path("v"), b.path("m"))
		b.fails(exitMountpoint, "inside the vault", "x\n", "mount", "--create", b.path("v"), b.path("v/m"))
		b.fails(exitMountpoint, "inside the mount point", "x\n", "mount", "--create", b.path("m/v"), b.path("m"))
		b.fails(exitMountpoint, "same directory", "x\n", "mount", "--create", b.path("v"), b.path("x/../v"))
	}, b.path("v"), b.path("m"))
}

func TestMountOnTerminal(t *testing.T) {
	needFUSE(t, nil)
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mkdir("plain")
	tm := b.start("mount", v, mp)
	tm.expectSecret("Passphrase: ")
	tm.typeLine(passphrase)
	if code := tm.wait(); code != 0 {
		t.Fatalf("exit %d:\n%s", code, tm.text())
	}
	// The terminal goes away and the daemon must not care.
	tm.master.Close()
	time.Sleep(50 * time.Millisecond)
	writeFile(t, filepath.Join(mp, "file"), "content")
	b.ok("", "umount", mp)
}

// The daemon keeps nothing of its parent: no terminal, no working directory, no descriptor, and no secret that ps would show.
func TestDaemonIsDetached(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	pid := b.daemon(mp)
	sid, err := unix.Getsid(pid)
	if err != nil || sid != pid {
		t.Errorf("session %d of daemon %d, %v", sid, pid, err)
	}
	if cwd, err := os.Readlink(procPath(pid, "cwd")); err != nil || cwd != "/" {
		t.Errorf("working directory %q, %v", cwd, err)
	}
	if name := readFile(t, procPath(pid, "comm")); name != "coffer\n" {
		t.Errorf("the daemon is called %q", name)
	}
	for _, f := range []string{"cmdline", "environ"} {
		if content := readFile(t, procPath(pid, f)); strings.Contains(content, passphrase) {
			t.Errorf("%s shows the passphrase", f)
		}
	}
	limits := readFile(t, procPath(pid, "limits"))
	for line := range strings.Lines(limits) {
		f := strings.Fields(line)
		if strings.HasPrefix(line, "Max core file size") && f[4] != "0" {
			t.Errorf("core dumps are on: %s", line)
		}
		if strings.HasPrefix(line, "Max open files") && f[3] != f[4] {
			t.Errorf("not all descriptors are taken: %s", line)
		}
	}
	for line := range strings.Lines(readFile(t, procPath(pid, "status"))) {
		f := strings.Fields(line)
		if f[0] != "VmRSS:" || raceEnabled {
			continue
		}
		if kib, err := strconv.Atoi(f[1]); err != nil || kib > 40<<10 {
			t.Errorf("an idle daemon holds more than 40 MiB: %s %v", line, err)
		}
	}
	b.ok("", "umount", mp)
	if state, err := os.ReadFile(procPath(pid, "stat")); err == nil && !strings.Contains(string(state), ") Z ") {
		t.Errorf("umount returned before the daemon ended: %s", state)
	}
}

func procPath(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

// daemon is the pid that info shows.
func (b *box) daemon(mountpoint string) int {
	b.t.Helper()
	m, ok, err := mountAt(mountpoint)
	if err != nil || !ok {
		b.t.Fatalf("%s is not mounted: %v", mountpoint, err)
	}
	pid := peekLock(m.source).Holder.PID
	if pid == 0 {
		b.t.Fatal("no holder in the lock")
	}
	return pid
}

func TestForeground(t *testing.T) {
	needFUSE(t, nil)
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGTERM, nil} {
		name := "umount"
		if sig != nil {
			name = sig.String()
		}
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			v, _ := b.newVault("vault")
			mp := b.mkdir("plain")
			fg := b.foreground(v, mp)
			writeFile(t, filepath.Join(mp, "file"), "content")
			if err := unix.Kill(fg.cmd.Process.Pid, unix.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if sig == nil {
				b.ok("", "umount", mp)
			} else if err := fg.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := fg.cmd.Wait(); err != nil {
				t.Errorf("%v\n%s", err, fg.stderr.String())
			}
			if info := b.ok("", "info", v).stdout; !strings.Contains(info, "clean     yes") {
				t.Errorf("after it ended info says:\n%s", info)
			}
			b.mount(v, "plain")
			if got := readFile(t, filepath.Join(mp, "file")); got != "content" {
				t.Errorf("read back %q", got)
			}
		})
	}
}

type foreground struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
}

// foreground starts mount --foreground and waits until the mount is there.
func (b *box) foreground(v, mp string, flags ...string) foreground {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	cmd := b.command(ctx, append([]string{"mount", "--foreground", v, mp}, flags...)...)
	stderr := &lockedBuffer{}
	cmd.Stdin, cmd.Stderr = strings.NewReader(passphrase+"\n"), stderr
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if strings.Contains(stderr.String(), "coffer: mounted") {
			return foreground{cmd, stderr}
		}
		if time.Now().After(end) {
			b.t.Fatalf("not mounted:\n%s", stderr.String())
		}
	}
}

// A busy mount stays, names who uses it, and can be unmounted once they are gone.
func TestBusy(t *testing.T) {
	b := newBox(t)
	b.warnings = []string{"still mounted"}
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	writeFile(t, filepath.Join(mp, "file"), "content")
	pid := b.daemon(mp)

	hold := exec.Command("sleep", "100")
	hold.Dir = mp
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hold.Process.Kill() }()
	b.fails(exitBusy, "sleep (pid "+strconv.Itoa(hold.Process.Pid)+", working directory)", "", "umount", mp)

	// A signal says the same in the log, and the daemon serves on.
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log := b.path("state/coffer/coffer.log")
	for end := time.Now().Add(time.Minute); !strings.Contains(readFile(t, log), "still mounted"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the log does not say that it is still mounted")
		}
	}
	if !strings.Contains(readFile(t, log), "sleep (pid "+strconv.Itoa(hold.Process.Pid)) {
		t.Error("the log does not name the holder")
	}
	if got := readFile(t, filepath.Join(mp, "file")); got != "content" {
		t.Errorf("read %q", got)
	}

	_ = hold.Process.Kill()
	_ = hold.Wait()
	f, err := os.Open(filepath.Join(mp, "file"))
	if err != nil {
		t.Fatal(err)
	}
	b.fails(exitBusy, "open file", "", "umount", mp)
	mapped, err := unix.Mmap(int(f.Fd()), 0, 7, unix.PROT_READ, unix.MAP_SHARED)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	b.fails(exitBusy, "mapped file", "", "umount", mp)
	if err := unix.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	b.ok("", "umount", mp)
}

func TestReadOnlyMount(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	writeFile(t, filepath.Join(mp, "file"), "content")
	b.ok("", "umount", mp)
	unchanged(t, func() {
		b.mount(v, "plain", "-o", "ro")
		if got := readFile(t, filepath.Join(mp, "file")); got != "content" {
			t.Errorf("read %q", got)
		}
		if err := os.WriteFile(filepath.Join(mp, "new"), nil, 0o644); err == nil {
			t.Error("a read-only mount takes writes")
		}
		b.ok("", "umount", mp)
	}, v)
}

func TestMountWords(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	for _, test := range []struct{ words, with, without string }{
		{"rw", "rw,nosuid,nodev", "noexec"},
		{"noexec,noatime,fsname=my\\040name", "noexec,noatime", ""},
		{"ro", "ro,nosuid,nodev", "rw"},
		{"suid,dev,exec", "rw", "nosuid"},
		{"allow_other,nowriteback", "allow_other", ""},
		{"default_permissions", "rw", "allow_other"},
	} {
		if os.Geteuid() != 0 && (strings.HasPrefix(test.words, "suid") || strings.HasPrefix(test.words, "allow_other") && !userAllowOther("/etc/fuse.conf")) {
			continue
		}
		mp := b.mount(v, "plain", "-o", test.words)
		var line string
		for l := range strings.Lines(readFile(t, "/proc/self/mounts")) {
			if strings.Contains(l, " "+mp+" ") {
				line = l
			}
		}
		if !strings.Contains(line, test.with) || test.without != "" && strings.Contains(line, test.without) {
			t.Errorf("-o %s: %s", test.words, line)
		}
		checked := os.Geteuid() != 0 || strings.Contains(test.words, "allow_other") || strings.Contains(test.words, "default_permissions")
		if strings.Contains(line, "default_permissions") != checked {
			t.Errorf("-o %s: the kernel is to check permissions: %v, but: %s", test.words, checked, line)
		}
		b.ok("", "umount", mp)
	}
}

func TestNoXAttrWord(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	want := unix.Setxattr(v, "user.probe", nil, 0) // the host's answer
	for words, want := range map[string]error{"rw": want, "noxattr": unix.EOPNOTSUPP} {
		mp := b.mount(v, "plain", "-o", words)
		if err := unix.Setxattr(mp, "user.x", []byte("y"), 0); err != want {
			t.Errorf("-o %s: set: %v, want %v", words, err, want)
		}
		b.ok("", "umount", mp)
	}
}

func TestACLWord(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	// The owner reads and writes, user 12 reads; mask and others follow.
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 12, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255,
		16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255}
	probe := filepath.Join(v, "probe")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := unix.Setxattr(probe, "system.posix_acl_access", acl, 0) // the host's answer
	if err := os.Remove(probe); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]error{"acl": want, "rw": unix.EOPNOTSUPP} {
		mp := b.mount(v, "plain", "-o", words)
		file := filepath.Join(mp, "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(file, "system.posix_acl_access", acl, 0); err != want {
			t.Errorf("-o %s: set: %v, want %v", words, err, want)
		}
		b.ok("", "umount", mp)
	}
	if _, err := parseWords([]string{"acl,noxattr"}); err == nil {
		t.Error("acl and noxattr are taken together")
	}
}

// Paths are bytes: anything but NUL may be in them.
func TestOddPaths(t *testing.T) {
	b := newBox(t)
	for i, name := range []string{"with, comma", "back\\slash", "new\nline", "not \xff UTF-8", "'quoted' \"twice\"", "#:=%s"} {
		v, _ := b.newVault("vault " + name)
		mp := b.mount(v, "plain "+name)
		writeFile(t, filepath.Join(mp, "file"), name)
		second := b.mkdir("second")
		b.fails(exitInUse, "is mounted", "", "mount", v, second)
		b.ok("", "umount", mp)
		b.ok(passphrase+"\n", "mount", "-o", "ro", v, mp)
		if got := readFile(t, filepath.Join(mp, "file")); got != name {
			t.Errorf("%d: read %q", i, got)
		}
		b.ok("", "umount", mp)
		if pid := daemonByArgs(mp); pid != 0 {
			t.Errorf("%d: umount did not wait for daemon %d", i, pid)
		}
	}
}

// A daemon that was killed leaves a dead mount. The next mount clears it, says so, and finds the data that had been closed.
func TestDeadMount(t *testing.T) {
	b := newBox(t)
	b.warnings = []string{"unclean", "not closed cleanly"}
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	writeFile(t, filepath.Join(mp, "file"), "content")
	pid := b.daemon(mp)
	kill(t, pid)
	if _, err := os.Stat(mp); err == nil {
		t.Fatal("the mount is not dead")
	}
	if info := b.ok("", "info", v).stdout; !strings.Contains(info, "clean     no") {
		t.Errorf("info says:\n%s", info)
	}
	r := b.ok(passphrase+"\n", "mount", v, mp)
	if !strings.Contains(r.stderr, "cleared a dead mount") {
		t.Errorf("does not say that it cleared a dead mount: %q", r.stderr)
	}
	if got := readFile(t, filepath.Join(mp, "file")); got != "content" {
		t.Errorf("read %q", got)
	}

	// umount clears one as well.
	kill(t, b.daemon(mp))
	r = b.ok("", "umount", mp)
	if !strings.Contains(r.stderr, "cleared a dead mount") {
		t.Errorf("does not say that it cleared a dead mount: %q", r.stderr)
	}
	if _, err := os.Stat(mp); err != nil {
		t.Error(err)
	}
}

// kill ends a daemon without mercy and waits until it is gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60000); n != 1 || err != nil {
		t.Fatalf("the daemon does not end: %v", err)
	}
}

// A copy of a vault in use is refused, and opened when asked.
func TestUncleanCopy(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	writeFile(t, filepath.Join(mp, "file"), "content")
	cp := b.path("copy")
	if out, err := exec.Command("cp", "-a", v, cp).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.ok("", "umount", mp)
	mp2 := b.mkdir("plain2")
	// The lock's note came along, but not the lock: it is of this host and so a leftover.
	unchangedBut := snapshotWithoutLock(t, cp)
	b.fails(exitCopied, "copy of a vault", passphrase+"\n", "mount", cp, mp2)
	if after := snapshotWithoutLock(t, cp); after != unchangedBut {
		t.Errorf("something changed on disk:\n%s\n%s", unchangedBut, after)
	}
	b.mount(cp, "plain2", "--recover")
	if got := readFile(t, filepath.Join(mp2, "file")); got != "content" {
		t.Errorf("read %q", got)
	}
}

// snapshotWithoutLock leaves the lock's note out: taking the lock to look inside replaces it.
func snapshotWithoutLock(t *testing.T, root string) string {
	t.Helper()
	var keep []string
	for line := range strings.Lines(snapshot(t, root)) {
		if !strings.Contains(line, "/.coffer/lock ") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}

// The parent reports what the daemon says, and nothing stays mounted.
func TestInterruptedMount(t *testing.T) {
	needFUSE(t, nil)
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mkdir("plain")
	tm := b.start("mount", v, mp)
	tm.expectSecret("Passphrase: ")
	if err := tm.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := tm.wait(); code != int(exitInterrupted) {
		t.Errorf("exit %d", code)
	}
	if !tm.echo() {
		t.Error("the terminal was left without echo")
	}
}

// nobody is a user that fusermount3 can name and that owns nothing.
const nobody = 65534

func userCred() *syscall.Credential { return &syscall.Credential{Uid: nobody, Gid: nobody} }

// TestNormalUser: who is not root mounts, unmounts and clears a dead mount by fusermount3, and is told what only root may do.
func TestNormalUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the tests run as a normal user already")
	}
	cred := userCred()
	needFUSE(t, cred)
	b := newBox(t)
	b.cred = cred
	// Test directories are private to root.
	for d := b.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(b.dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	v, mp := b.path("vault, and \\"), b.path("plain") // what fusermount3 wants escaped
	b.ok(passphrase+"\n", append([]string{"mount", "--create", v, mp}, cheap...)...)
	asUser := func(script string) string {
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", script, err, out)
		}
		return string(out)
	}
	asUser("echo content > " + mp + "/file")
	if _, err := os.Stat(filepath.Join(mp, "file")); err == nil {
		t.Error("another user can look into the mount")
	}
	asUser("cd " + mp + " && sleep 100 > /dev/null 2>&1 & echo $! > " + b.path("pid"))
	pid := strings.TrimSpace(readFile(t, b.path("pid")))
	for end := time.Now().Add(time.Minute); readFile(t, "/proc/"+pid+"/comm") != "sleep\n" && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	b.fails(exitBusy, "sleep (pid "+pid, "", "umount", mp)
	asUser("kill " + pid)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Readlink("/proc/" + pid + "/cwd"); err != nil { // it has left the mount
			break
		}
	}
	b.ok("", "umount", mp)
	b.ok(passphrase+"\n", "mount", v, mp)
	if got := asUser("cat " + mp + "/file"); got != "content\n" {
		t.Errorf("read %q", got)
	}

	// A dead mount is cleared by its user too.
	kill(t, b.daemon(mp))
	b.warnings = []string{"unclean", "not closed cleanly"}
	r := b.ok(passphrase+"\n", "mount", v, mp)
	if !strings.Contains(r.stderr, "cleared a dead mount") {
		t.Errorf("does not say that it cleared a dead mount: %q", r.stderr)
	}
	b.ok("", "umount", mp)

	if !userAllowOther("/etc/fuse.conf") {
		b.fails(exitPermission, "user_allow_other", passphrase+"\n", "mount", "-o", "allow_other", v, mp)
	}
	b.fails(exitPermission, "only root", passphrase+"\n", "mount", "-o", "suid", v, mp)
	theirs := b.path("theirs")
	if err := os.Mkdir(theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	b.fails(exitPermission, "not writable", passphrase+"\n", "mount", v, theirs)
	b.fails(exitPermission, "permission denied", passphrase+"\n", append([]string{"init", theirs + "/v"}, cheap...)...)
	rootBox := *b
	rootBox.cred = nil
	private, _ := rootBox.newVault("private")
	b.fails(exitPermission, "permission denied", passphrase+"\n", "mount", private, mp)
	b.fails(exitPermission, "permission denied", passphrase+"\n", "info", private)
}

// lockedBuffer collects what a process writes while the test reads it.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
