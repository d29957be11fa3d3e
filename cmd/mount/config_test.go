package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigBackup(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("v")
	file := b.path("kept")
	b.ok("", "config", "backup", v, file)
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 || readFile(t, file) != readFile(t, filepath.Join(v, ".coffer", "config")) {
		t.Errorf("%v, %v", st, err)
	}
	b.fails(exitUsage, "exists already", "", "config", "backup", v, file)
	b.fails(exitUsage, "a command is missing", "", "config")

	b.ok(passphrase+"\nother\n", append([]string{"passwd", v}, cheap...)...)
	b.fails(exitPassphrase, "wrong passphrase", "other\n", "config", "restore", v, file)
	r := b.ok(passphrase+"\n", "config", "restore", v, file)
	if !strings.Contains(r.stderr, "opens the vault again") || !strings.Contains(r.stderr, "does not open the vault any more") {
		t.Errorf("it says:\n%s", r.stderr)
	}
	b.wantOpens(v, "--passfile", b.write("pass", passphrase+"\n"))
	for _, name := range []string{"config", "config.bak"} {
		if err := os.Remove(filepath.Join(v, ".coffer", name)); err != nil {
			t.Fatal(err)
		}
	}
	if r := b.ok(passphrase+"\n", "config", "restore", v, file); !strings.Contains(r.stderr, "could not be used") {
		t.Errorf("it says:\n%s", r.stderr)
	}
	b.ok(passphrase+"\n", "verify", v)

	w, _ := b.newVault("w")
	unchanged(t, func() {
		b.fails(exitConfig, "belongs to another vault", passphrase+"\n", "config", "restore", w, file)
		b.fails(exitConfig, "is no backup of a config", "", "config", "restore", w, b.write("text", "text"))
		b.fails(exitConfig, "cannot read the backup", "", "config", "restore", w, b.path("nowhere"))
	}, w)
}
