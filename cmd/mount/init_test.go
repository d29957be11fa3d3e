package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInitWithoutTerminal(t *testing.T) {
	b := newBox(t)
	v := b.path("vault")
	r := b.ok(passphrase+"\n", append([]string{"init", v}, cheap...)...)
	if r.stdout != "" {
		t.Errorf("wrote to standard output: %q", r.stdout)
	}
	if !strings.Contains(r.stderr, "was not shown") || !strings.Contains(r.stderr, "coffer recover --show "+v) {
		t.Errorf("does not say how to get the recovery key: %q", r.stderr)
	}

	// Later, with the passphrase, into a file.
	file := b.path("key")
	b.fails(exitReadSecret, "no terminal", passphrase+"\n", "recover", "--show", v)
	b.fails(exitPassphrase, "wrong passphrase", "no\n", "recover", "--show", "--recovery-file", file, v)
	if _, err := os.Stat(file); err == nil {
		t.Error("a recovery file was left behind by a command that failed")
	}
	b.ok(passphrase+"\n", "recover", "--show", "--recovery-file", file, v)
	key, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.stderr, strings.TrimSpace(string(key))) {
		t.Error("init printed the recovery key on standard error")
	}
	b.ok(string(key)+"new passphrase\n", append([]string{"recover", v}, cheap...)...)
	b.fails(exitPassphrase, "wrong passphrase", passphrase+"\n", "recover", "--show", "--recovery-file", b.path("key2"), v)
	b.ok("new passphrase\n", "recover", "--show", "--recovery-file", b.path("key2"), v)
	again, err := os.ReadFile(b.path("key2"))
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(key) {
		t.Error("the recovery key changed")
	}
}

func TestInitRecoveryFile(t *testing.T) {
	b := newBox(t)
	v, key := b.newVault("vault")
	st, err := os.Stat(v + ".recovery")
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 {
		t.Errorf("recovery file has mode %v", st.Mode())
	}
	if len(strings.Split(key, "-")) != 14 {
		t.Errorf("recovery key is %q", key)
	}
	if st, err := os.Stat(v); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("a vault directory that init makes has mode %v, %v", st.Mode(), err)
	}
	// An existing file is never written over.
	unchanged(t, func() {
		b.fails(exitOther, "file exists", passphrase+"\n", append([]string{"init", "--recovery-file", v + ".recovery", b.path("other")}, cheap...)...)
	}, b.dir)
}

func TestInitOnTerminal(t *testing.T) {
	b := newBox(t)
	v := b.path("vault")
	tm := b.start(append([]string{"init", v}, cheap...)...)
	tm.expectSecret("New passphrase: ")
	tm.typeLine(passphrase)
	tm.expectSecret("New passphrase again: ")
	tm.typeLine(passphrase)
	if code := tm.wait(); code != 0 {
		t.Fatalf("exit %d:\n%s", code, tm.text())
	}
	if strings.Contains(tm.text(), passphrase) {
		t.Error("the passphrase was echoed")
	}
	if tm.stdout.Len() > 0 {
		t.Errorf("wrote to standard output: %q", tm.stdout.String())
	}
	b.ok(passphrase+"\n", "recover", "--show", "--recovery-file", b.path("key"), v)
	key, err := os.ReadFile(b.path("key"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(tm.text(), strings.TrimSpace(string(key))) {
		t.Errorf("the recovery key was not shown:\n%s", tm.text())
	}
	if !tm.echo() {
		t.Error("the terminal was left without echo")
	}
}

func TestInitPassphrasesDiffer(t *testing.T) {
	b := newBox(t)
	tm := b.start(append([]string{"init", b.path("vault")}, cheap...)...)
	tm.expectSecret("New passphrase: ")
	tm.typeLine(passphrase)
	tm.expectSecret("New passphrase again: ")
	tm.typeLine("something else")
	if code := tm.wait(); code != int(exitReadSecret) {
		t.Errorf("exit %d", code)
	}
	if _, err := os.Stat(b.path("vault")); err == nil {
		t.Error("a directory was left behind")
	}
}

func TestInterruptAtPrompt(t *testing.T) {
	for name, interrupt := range map[string]func(tm *terminal) error{
		"^C":     func(tm *terminal) error { _, err := tm.master.WriteString("\x03"); return err },
		"^\\":    func(tm *terminal) error { _, err := tm.master.WriteString("\x1c"); return err },
		"SIGHUP": func(tm *terminal) error { return tm.cmd.Process.Signal(unix.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			tm := b.start(append([]string{"init", b.path("vault")}, cheap...)...)
			tm.expectSecret("New passphrase: ")
			if err := interrupt(tm); err != nil {
				t.Fatal(err)
			}
			if code := tm.wait(); code != int(exitInterrupted) {
				t.Errorf("exit %d", code)
			}
			if !tm.echo() {
				t.Error("the terminal was left without echo")
			}
			if _, err := os.Stat(b.path("vault")); err == nil {
				t.Error("a directory was left behind")
			}
		})
	}
}

func TestInitErrors(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("vault")
	full := b.mkdir("full")
	b.write("full/file", "x")
	file := b.write("file", "x")
	b.write("empty-first-line", "\nsecond\n")
	b.mkdir("empty")
	tests := []struct {
		name  string
		code  Code
		want  string
		stdin string
		args  []string
	}{
		{"no argument", exitUsage, "takes 1 argument and got 0", "", []string{"init"}},
		{"unknown flag", exitUsage, "unknown flag", "", []string{"init", "--nope", b.path("new")}},
		{"suite", exitUsage, "unknown suite", "x\n", []string{"init", "--suite", "aes-128", b.path("new")}},
		{"digest", exitUsage, "unknown digest", "x\n", []string{"init", "--digest", "md5", b.path("new")}},
		{"sizes", exitUsage, "64K/4K", "x\n", []string{"init", "--segment-size", "64K", "--frame-size", "64K", b.path("new")}},
		{"size", exitUsage, "is no size", "x\n", []string{"init", "--segment-size", "many", b.path("new")}},
		{"segment size", exitUsage, "no such geometry", "x\n", []string{"init", "--segment-size", "17K", b.path("new")}},
		{"kdf memory", exitUsage, "--kdf-memory", "x\n", []string{"init", "--kdf-memory", "99999999", b.path("new")}},
		{"kdf time", exitUsage, "--kdf-time", "x\n", []string{"init", "--kdf-time", "1000", b.path("new")}},
		{"a vault already", exitVaultDir, "is a vault already", "x\n", []string{"init", v}},
		{"not empty", exitVaultDir, "is not empty", "x\n", []string{"init", full}},
		{"a file", exitVaultDir, "not a directory", "x\n", []string{"init", file}},
		{"empty passphrase", exitEmpty, "passphrase is empty", "\n", []string{"init", b.path("new")}},
		{"end of input", exitEmpty, "passphrase is empty", "", []string{"init", b.path("empty")}},
		{"empty passfile", exitEmpty, "passphrase is empty", "", []string{"init", "--passfile", b.path("empty-first-line"), b.path("new")}},
		{"no passfile", exitReadSecret, "no such file", "", []string{"init", "--passfile", b.path("nope"), b.path("new")}},
		{"passfile is a directory", exitReadSecret, "is a directory", "", []string{"init", "--passfile", full, b.path("new")}},
		{"both sources", exitUsage, "both", "", []string{"init", "--passfile", file, "--extpass", "echo x", b.path("new")}},
		{"extpass fails", exitReadSecret, "failed", "", []string{"init", "--extpass", "false", b.path("new")}},
		{"extpass missing", exitReadSecret, "no-such-program", "", []string{"init", "--extpass", "no-such-program", b.path("new")}},
		{"extpass silent", exitEmpty, "passphrase is empty", "", []string{"init", "--extpass", "true", b.path("new")}},
		{"recovery file in a missing place", exitOther, "no such file", "x\n", []string{"init", "--recovery-file", b.path("no/key"), b.path("new")}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sub := *b
			sub.t = t
			unchanged(t, func() { sub.fails(test.code, test.want, test.stdin, test.args...) }, b.dir)
		})
	}
}

func TestInitParameters(t *testing.T) {
	b := newBox(t)
	for _, test := range []struct {
		name, want string
		flags      []string
	}{
		{"default", "segment 64K, frame 4K", nil},
		{"auto frame", "segment 1M, frame 32K", []string{"--segment-size", "1M"}},
		{"auto word", "segment 64K, frame 16K", []string{"--frame-size", "auto"}},
		{"explicit", "segment 16K, frame 4K", []string{"--segment-size", "16384", "--frame-size", "4KiB"}},
		{"suite", "xchacha20-poly1305", []string{"--suite", "xchacha20-poly1305"}},
		{"digest", "sha256", []string{"--digest", "sha256"}},
	} {
		v := b.path(strings.ReplaceAll(test.name, " ", "-"))
		b.ok("", append(append([]string{"init", "--extpass", "printf one\\ntwo", v}, cheap...), test.flags...)...)
		if info := b.ok("", "info", v).stdout; !strings.Contains(info, test.want) {
			t.Errorf("%s: no %q in:\n%s", test.name, test.want, info)
		}
		b.ok("one\n", "recover", "--show", "--recovery-file", v+".key", v)
	}
}

func TestPasswd(t *testing.T) {
	b := newBox(t)
	v, key := b.newVault("vault")
	unchanged(t, func() {
		b.fails(exitPassphrase, "wrong passphrase", "wrong\nnew\n", "passwd", v)
		b.fails(exitEmpty, "passphrase is empty", passphrase+"\n\n", "passwd", v)
		b.fails(exitVaultDir, "does not exist", "", "passwd", b.path("nope"))
	}, b.dir)
	b.ok(passphrase+"\nnew one\n", "passwd", v)
	show := []string{"recover", "--show", "--recovery-file", b.path("key"), v}
	b.fails(exitPassphrase, "wrong passphrase", passphrase+"\n", show...)
	b.ok("new one\n", show...)
	if got, err := os.ReadFile(b.path("key")); err != nil || strings.TrimSpace(string(got)) != key {
		t.Errorf("the recovery key is another one: %v", err)
	}
	old, fresh := b.write("old", "new one\n"), b.write("fresh", "third\n")
	b.ok("", "passwd", "--passfile", old, "--new-passfile", fresh, v)
	b.ok("third\n", "recover", "--show", "--recovery-file", b.path("key2"), v)
}

func TestRecoverErrors(t *testing.T) {
	b := newBox(t)
	v, key := b.newVault("vault")
	_, other := b.newVault("other")
	typo := strings.ToUpper(key)
	if typo[0] == 'A' {
		typo = "B" + typo[1:]
	} else {
		typo = "A" + typo[1:]
	}
	unchanged(t, func() {
		b.fails(exitRecoveryKey, "checksum", typo+"\nnew\n", "recover", v)
		b.fails(exitRecoveryKey, "not a recovery key", "abc\nnew\n", "recover", v)
		b.fails(exitRecoveryKey, "recovery key does not belong", other+"\nnew\n", append([]string{"recover", v}, cheap...)...)
		b.fails(exitEmpty, "passphrase is empty", key+"\n\n", "recover", v)
		b.fails(exitReadSecret, "no such file", "", "recover", "--recovery-file", b.path("nope"), v)
	}, b.dir)
	b.ok(strings.ToLower(strings.ReplaceAll(key, "-", " "))+"\nnew\n", append([]string{"recover", v}, cheap...)...)
}

// A lost config comes back from the recovery key and any file of the vault.
func TestRecoverLostConfig(t *testing.T) {
	b := newBox(t)
	b.warnings = []string{"the state is lost and was rebuilt"}
	v, key := b.newVault("vault")
	mp := b.mount(v, "plain")
	if err := os.WriteFile(filepath.Join(mp, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.ok("", "umount", mp)
	if err := os.RemoveAll(filepath.Join(v, ".coffer")); err != nil {
		t.Fatal(err)
	}
	b.fails(exitVaultDir, "not a coffer vault", passphrase+"\n", "mount", v, mp)
	b.ok(key+"\n"+passphrase+"\n", append([]string{"recover", v}, cheap...)...)
	b.mount(v, "plain")
	if got, err := os.ReadFile(filepath.Join(mp, "file")); err != nil || string(got) != "content" {
		t.Errorf("read back %q, %v", got, err)
	}
}
