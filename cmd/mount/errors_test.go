package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

func TestUsageErrors(t *testing.T) {
	b := newBox(t)
	b.fails(exitUsage, "command is missing", "")
	b.fails(exitUsage, "unknown command", "", "frobnicate")
	if r := b.fails(exitUsage, "unknown command", "", "moutn"); !strings.Contains(r.stderr, "did you mean: coffer mount") {
		t.Errorf("no suggestion: %s", r.stderr)
	}
	b.fails(exitUsage, "unknown flag", "", "mount", "--nope")
	b.fails(exitUsage, "takes 2 arguments and got 1", "", "mount", "x")
	b.fails(exitUsage, "takes 1 argument and got 0", "", "umount")
	b.fails(exitUsage, "path is empty", "", "mount", "", "x")
	b.fails(exitUsage, "coffer's own use", "", "serve", "a", "b")
	b.fails(exitUsage, "a whole number from 0 on", "", "init", "--kdf-memory=-1", b.path("v"))
	b.fails(exitUsage, "too large", "", "init", "--kdf-memory=99999999999", b.path("v"))
	b.fails(exitUsage, "no help on", "", "help", "frobnicate")
	b.fails(exitUsage, "no help on", "", "help", "mount", "x")
	for _, word := range []string{"nope", "fsname", "fsname=", "ro=1", "user=me"} {
		b.fails(exitUsage, "mount option", "x\n", "mount", "-o", "rw,"+word, b.path("v"), b.path("m"))
	}
}

func TestHelp(t *testing.T) {
	b := newBox(t)
	for _, args := range [][]string{{"help"}, {"--help"}, {"help", "mount"}, {"mount", "--help"}, {"init", "-h"}, {"completion", "bash"}, {"version"}} {
		r := b.ok("", args...)
		if r.stdout == "" || r.stderr != "" {
			t.Errorf("coffer %v: stdout %d bytes, stderr %q", args, len(r.stdout), r.stderr)
		}
	}
	help := b.ok("", "help").stdout
	if !strings.Contains(help, exitHelp()) {
		t.Error("help does not list the exit codes")
	}
	for _, hidden := range []string{serveCommand, kdfCommand} {
		if strings.Contains(help, "\n  "+hidden+" ") {
			t.Errorf("help shows the hidden command %s", hidden)
		}
	}
}

// Help names what a flag takes by what it is, in capitals, and not by its type in Go.
func TestFlagNames(t *testing.T) {
	flags := 0
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			flags++
			if name, _ := pflag.UnquoteUsage(f); name != strings.ToUpper(name) {
				t.Errorf("%s --%s takes a %s", c.CommandPath(), f.Name, name)
			}
		})
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit((&app{}).rootCmd())
	if flags < 100 {
		t.Errorf("%d flags were looked at", flags)
	}
}

// README's table is the one of exit.go.
func TestREADMEExitCodes(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range exitTable {
		if line := "| " + strconv.Itoa(int(row.code)) + " | " + row.text + " |"; !bytes.Contains(readme, []byte(line+"\n")) {
			t.Errorf("README lacks %q", line)
		}
	}
	if got := bytes.Count(readme, []byte("\n")); got >= 150 {
		t.Errorf("README has %d lines", got)
	}
}

func TestMountErrors(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mkdir("plain")
	full := b.mkdir("full")
	b.write("full/file", "x")
	file := b.write("file", "x")
	b.mkdir("empty")
	inside := b.mkdir("vault/inside")
	if err := os.Symlink(inside, b.path("link-inside")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(b.path("nowhere"), b.path("dangling")); err != nil {
		t.Fatal(err)
	}
	around := b.mkdir("around")
	inner, _ := b.newVault("around/vault")
	tests := []struct {
		name         string
		code         Code
		want         string
		stdin        string
		vault, point string
	}{
		{"vault missing", exitVaultDir, "does not exist", "x\n", b.path("nope"), mp},
		{"vault is a file", exitVaultDir, "not a directory", "x\n", file, mp},
		{"no vault", exitVaultDir, b.path("empty") + " is not a coffer vault", "x\n", b.path("empty"), mp},
		{"wrong passphrase", exitPassphrase, "wrong passphrase", "wrong\n", v, mp},
		{"empty passphrase", exitEmpty, "passphrase is empty", "\n", v, mp},
		{"no input", exitEmpty, "passphrase is empty", "", v, mp},
		{"mount point missing", exitMountpoint, "does not exist", passphrase, v, b.path("nope")},
		{"mount point below a missing one", exitMountpoint, "does not exist", passphrase, v, b.path("nope/nope")},
		{"mount point is a dangling link", exitMountpoint, "does not exist", passphrase, v, b.path("dangling")},
		{"mount point below a file", exitMountpoint, "not a directory", passphrase, v, b.path("file/x")},
		{"mount point is a file", exitMountpoint, "not a directory", passphrase, v, file},
		{"mount point not empty", exitMountpoint, "not empty", passphrase, v, full},
		{"mount point inside", exitMountpoint, "inside the vault", passphrase, v, inside},
		{"mount point inside by a link", exitMountpoint, "inside the vault", passphrase, v, b.path("link-inside")},
		{"vault inside", exitMountpoint, "inside the mount point", passphrase, inner, around},
		{"the same", exitMountpoint, "same directory", passphrase, v, v + "/."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sub := *b
			sub.t = t
			unchanged(t, func() { sub.fails(test.code, test.want, test.stdin, "mount", test.vault, test.point) }, v, mp, full, around)
		})
	}
	b.fails(exitOther, "cannot open the log", passphrase+"\n", "mount", "--log", b.path("no/log"), v, mp)
}

// What the daemon finds wrong is told alike by the command that started it and by one that is the daemon itself.
func TestMountErrorsOfDaemon(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mkdir("plain")
	if err := remake(filepath.Join(v, ".coffer/state"), os.Mkdir(filepath.Join(v, ".coffer/statex"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--foreground=false", "--foreground"} {
		r := b.fails(exitConfig, "not a regular file", passphrase+"\n", "mount", flag, v, mp)
		if !strings.Contains(r.stderr, "hint: look at what stands there") {
			t.Errorf("%s: no hint: %s", flag, r.stderr)
		}
	}
}

// Whatever stands in the place of the config, both copies of it: one line, a hint, nothing changed, no hang.
func TestConfigErrors(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	other, _ := b.newVault("other")
	good := readFile(t, filepath.Join(v, ".coffer/config"))
	mp := b.mkdir("plain")
	tests := []struct {
		name string
		code Code
		want string
		put  func(path string) error
	}{
		{"missing", exitConfig, "no such file", os.Remove},
		{"empty", exitConfig, "config", func(p string) error { return os.WriteFile(p, nil, 0o600) }},
		{"garbage", exitConfig, "config", func(p string) error { return os.WriteFile(p, []byte("garbage"), 0o600) }},
		{"cut", exitConfig, "config", func(p string) error { return os.WriteFile(p, []byte(good[:200]), 0o600) }},
		{"FIFO", exitConfig, "config", func(p string) error { return remake(p, unix.Mkfifo(p+"x", 0o600)) }},
		{"directory", exitConfig, "config", func(p string) error { return remake(p, os.Mkdir(p+"x", 0o700)) }},
		{"link", exitConfig, "config", func(p string) error { return remake(p, os.Symlink("state", p+"x")) }},
		{"200 MB", exitConfig, "too large", func(p string) error { return os.Truncate(p, 200<<20) }},
		{"version", exitConfig, "version", func(p string) error {
			return os.WriteFile(p, []byte(strings.Replace(good, `"version": 1`, `"version": 2`, 1)), 0o600)
		}},
		{"feature", exitConfig, "feature", func(p string) error {
			return os.WriteFile(p, []byte(strings.Replace(good, `"incompat": 0`, `"incompat": 1`, 1)), 0o600)
		}},
		{"changed suite", exitConfig, "not authentic", func(p string) error {
			return os.WriteFile(p, []byte(strings.Replace(good, `"xaes-256-gcm"`, `"xchacha20-poly1305"`, 1)), 0o600)
		}},
		{"of another vault", exitConfig, "not authentic", func(p string) error {
			return os.WriteFile(p, []byte(readFile(t, filepath.Join(other, ".coffer/config"))), 0o600)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sub := *b
			sub.t = t
			spoilt := sub.path("spoilt-" + strings.ReplaceAll(test.name, " ", "-"))
			if out, err := exec.Command("cp", "-a", v, spoilt).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, name := range []string{"config", "config.bak"} {
				if err := test.put(filepath.Join(spoilt, ".coffer", name)); err != nil {
					t.Fatal(err)
				}
			}
			unchangedBut := snapshotWithoutLock(t, spoilt)
			r := sub.fails(test.code, test.want, passphrase+"\n", "mount", spoilt, mp)
			if test.want != "not authentic" && !strings.Contains(r.stderr, spoilt) { // what only the key shows comes later
				t.Errorf("does not say which vault: %s", r.stderr)
			}
			if test.name == "version" || test.name == "feature" { // no damage: no repair must be tried
				sub.fails(exitConfig, test.want, "", "scrub", spoilt)
			}
			if after := snapshotWithoutLock(t, spoilt); after != unchangedBut {
				t.Errorf("something changed on disk:\n%s\n%s", unchangedBut, after)
			}
		})
	}
	// With a good backup beside it, a damaged config is said and survived.
	if err := os.WriteFile(filepath.Join(v, ".coffer/config"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := b.ok("", "info", v); !strings.Contains(r.stderr, "warning: ") || !strings.Contains(r.stderr, "config.bak") {
		t.Errorf("info does not say that config is damaged: %q", r.stderr)
	}
}

// The same for the state and the lock: what cannot be one is said, with what to do, and nothing hangs.
func TestStateErrors(t *testing.T) {
	b := newBox(t)
	mp := b.mkdir("plain")
	v, _ := b.newVault("vault")
	put := map[string]func(path string) error{
		"FIFO":      func(p string) error { return remake(p, unix.Mkfifo(p+"x", 0o600)) },
		"directory": func(p string) error { return remake(p, os.Mkdir(p+"x", 0o700)) },
		"link":      func(p string) error { return remake(p, os.Symlink("config", p+"x")) },
	}
	for _, file := range []string{"state", "lock"} {
		path := filepath.Join(v, ".coffer", file)
		if err := os.Rename(path, path+".good"); err != nil {
			t.Fatal(err)
		}
		for what, make := range put {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			r := b.fails(exitConfig, file, passphrase+"\n", "mount", v, mp)
			if !strings.Contains(r.stderr, "remove it") {
				t.Errorf("%s for the %s: no hint: %s", what, file, r.stderr)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(path+".good", path); err != nil {
			t.Fatal(err)
		}
	}
	b.mount(v, "plain")
}

func remake(path string, err error) error {
	if err == nil {
		err = os.Rename(path+"x", path)
	}
	if err != nil {
		// A directory does not replace a file.
		if err = os.Remove(path); err == nil {
			err = os.Rename(path+"x", path)
		}
	}
	return err
}

func TestVaultInUse(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mount(v, "plain")
	second := b.mkdir("second")
	r := b.fails(exitInUse, "mounted at", passphrase+"\n", "mount", v, second)
	if want := "pid " + strconv.Itoa(b.daemon(mp)); !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "coffer umount "+mp) {
		t.Errorf("does not name the holder (%s): %s", want, r.stderr)
	}
	b.fails(exitInUse, "in use", passphrase+"\n", "mount", "-o", "ro", v, second)
	w, _ := b.newVault("other")
	b.fails(exitMountpoint, "already a coffer mount", passphrase+"\n", "mount", w, mp)
	b.ok("", "umount", mp)

	// Readers share a vault and keep writers out.
	b.mount(v, "plain", "-o", "ro")
	b.mount(v, "second", "-o", "ro")
	b.mkdir("third")
	b.fails(exitInUse, "mounted for reading", passphrase+"\n", "mount", v, b.path("third"))
	// Without a note in the lock, umount still waits for the right daemon.
	pid := daemonByArgs(second)
	if pid == 0 {
		t.Error("the daemon of a read-only mount is not found")
	}
	b.ok("", "umount", second)
	if got := daemonByArgs(second); got != 0 {
		t.Errorf("umount returned before daemon %d ended", got)
	}
	b.ok("", "umount", mp)
	b.mount(v, "third")
}

func TestUmountErrors(t *testing.T) {
	b := newBox(t)
	b.mkdir("plain")
	file := b.write("file", "x")
	b.fails(exitMountpoint, "nothing is mounted", "", "umount", b.path("plain"))
	b.fails(exitMountpoint, "nothing is mounted", "", "umount", file)
	b.fails(exitMountpoint, "does not exist", "", "umount", b.path("nope"))
	b.fails(exitMountpoint, "does not exist", "", "umount", b.path("nope/nope"))
	if os.Geteuid() != 0 {
		t.Skip("the rest needs root to mount a tmpfs")
	}
	if err := unix.Mount("none", b.path("plain"), "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	b.fails(exitMountpoint, "not a coffer mount but tmpfs", "", "umount", b.path("plain"))
	if err := unix.Unmount(b.path("plain"), 0); err != nil {
		t.Fatal(err)
	}
}

// A host that is full or read-only.
func TestHostErrors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
	b := newBox(t)
	host := b.mkdir("host")
	if err := unix.Mount("none", host, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(host, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	v, _ := b.newVault("host/vault")
	mp := b.mkdir("plain")
	fill := func(but int64) {
		var st unix.Statfs_t
		if err := unix.Statfs(host, &st); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(host, "filler"), make([]byte, int64(st.Bavail)*st.Bsize-but), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	fill(0)
	second := filepath.Join(host, "second")
	r := b.run(passphrase+"\n", append([]string{"init", second}, cheap...)...)
	b.checkFailure(r, exitHostFull, "no space left", "init on a full host")
	if strings.Contains(r.stderr, "-o ro") {
		t.Errorf("advises to mount what could not be made: %s", r.stderr)
	}
	if _, err := os.Stat(second); err == nil {
		t.Error("a part of a vault was left behind on a full host")
	}
	needFUSE(t, nil)
	before := snapshotWithoutLock(t, v)
	if r := b.fails(exitHostFull, "no space left", passphrase+"\n", "mount", v, mp); !strings.Contains(r.stderr, "-o ro") {
		t.Errorf("does not suggest -o ro: %s", r.stderr)
	}
	if after := snapshotWithoutLock(t, v); after != before {
		t.Errorf("something changed on disk:\n%s\n%s", before, after)
	}
	// It can be read at least.
	b.mount(v, "plain", "-o", "ro")
	b.ok("", "umount", mp)
	if err := os.Remove(filepath.Join(host, "filler")); err != nil {
		t.Fatal(err)
	}

	if err := unix.Mount("", host, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	unchanged(t, func() {
		r := b.fails(exitReadOnly, "read-only", passphrase+"\n", "mount", v, mp)
		if !strings.Contains(r.stderr, "-o ro") {
			t.Errorf("does not suggest -o ro: %s", r.stderr)
		}
		source := b.write("source", "x")
		for _, args := range [][]string{
			{"init", second}, {"passwd", v}, {"key", "add", v}, {"recover", v}, {"config", "restore", v, source}, {"import", v, source}, {"verify", "--repair", v},
			{"config", "backup", v, filepath.Join(host, "backup")}, {"export", v, "/", filepath.Join(host, "copy")},
		} {
			if r := b.fails(exitReadOnly, "read-only", passphrase+"\nnew\n", args...); strings.Contains(r.stderr, "-o ro") {
				t.Errorf("%v advises a mount: %s", args, r.stderr)
			}
		}
		b.mount(v, "plain", "-o", "ro")
		b.ok("", "umount", mp)
	}, v)
}

// Machines without a FUSE device or without fusermount3, made with mount namespaces.
func TestNoFUSE(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespaces here: %v %s", err, out)
	}
	b := newBox(t)
	v, _ := b.newVault("vault")
	mp := b.mkdir("plain")
	hidden := func(prepare string) result {
		t.Helper()
		cmd := exec.Command("unshare", "-m", "sh", "-c", prepare+` && exec "$0" "$@"`, program, "mount", v, mp)
		cmd.Env = append(os.Environ(), raceOptions, "XDG_STATE_HOME="+b.path("state"))
		return b.finish(cmd, passphrase+"\n")
	}
	unchanged(t, func() {
		r := hidden("mkdir " + b.path("dev") + " && mount -t tmpfs none " + b.path("dev") + " && mknod -m 666 " + b.path("dev") +
			"/null c 1 3 && mount --move " + b.path("dev") + " /dev 2>/dev/null || mount --bind " + b.path("dev") + " /dev")
		b.checkFailure(r, exitFUSE, "/dev/fuse is missing", "mount without /dev/fuse")
	}, v, mp)
	if _, err := fusermountPath(); err != nil {
		return
	}
	needFUSE(t, userCred())
	for d := b.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", "-R", "65534:65534", b.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tool, err := fusermountPath()
	if err != nil {
		t.Fatal(err)
	}
	r := func() result {
		cmd := exec.Command("unshare", "-m", "sh", "-c", "mount --bind /dev/null "+tool+
			` && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0" "$@"`, program, "mount", v, mp)
		cmd.Env = append(os.Environ(), raceOptions, "XDG_STATE_HOME="+b.path("state"))
		return b.finish(cmd, passphrase+"\n")
	}()
	b.checkFailure(r, exitFUSE, "fusermount3 is not installed", "mount without fusermount3")
}
