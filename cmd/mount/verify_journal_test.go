package main

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// journalOf makes a vault whose daemon was killed: of the file "report", 500,000 bytes of a, 20 changes by b to t of 4,000 bytes each are in the journal only.
func journalOf(t *testing.T, b *box) (v string) {
	t.Helper()
	v, _ = b.newVault("v")
	mp := b.mount(v, "m")
	writeFile(t, filepath.Join(mp, "report"), strings.Repeat("a", 500_000))
	writeFile(t, filepath.Join(mp, "other"), strings.Repeat("o", 100_000))
	b.ok("", "umount", mp)
	b.mount(v, "m")
	f, err := os.OpenFile(filepath.Join(mp, "report"), os.O_RDWR, 0)
	noError(t, err)
	defer f.Close()
	for i := range 20 {
		_, err := f.WriteAt([]byte(strings.Repeat(string(rune('b'+i)), 4000)), int64(i)*20_000)
		noError(t, err)
		noError(t, f.Sync())
	}
	kill(t, b.daemon(mp))
	b.ok("", "umount", mp)
	return v
}

// TestVerifyJournal damages a journal in the ways that disks, people and tools that synchronize do.
func TestVerifyJournal(t *testing.T) {
	b := newBox(t)
	b.warnings = []string{"the state is lost"}
	good := journalOf(t, b)
	first := func(v string) string { return filepath.Join(v, ".coffer", "journal.0000") }
	change := func(path string, f func(b []byte) []byte) {
		t.Helper()
		data, err := os.ReadFile(path)
		noError(t, err)
		noError(t, os.WriteFile(path, f(data), 0o600))
	}
	rot := func(at, n int) func(v string) {
		return func(v string) {
			change(first(v), func(b []byte) []byte {
				for i := range b[at : at+n] {
					b[at+i] ^= 0x55
				}
				return b
			})
		}
	}
	tests := []struct {
		name   string
		damage func(v string)
		mounts bool // without a repair
		whole  bool // afterwards: nothing was lost
	}{
		{"rot in the middle", rot(100_000, 1), false, false},
		{"a block of rot", rot(131072, 4096), false, false},
		{"rot of the first record", rot(4096+10, 1), false, false},
		{"header", rot(20, 1), false, false},
		{"cut", func(v string) { noError(t, os.Truncate(first(v), 100_000)) }, false, false},
		{"emptied", func(v string) { noError(t, os.Truncate(first(v), 0)) }, true, false}, // as an unused one is
		{"copied beside itself", func(v string) { copyFile(t, first(v), filepath.Join(v, ".coffer", "journal.0007")) }, false, true},
		{"an older copy beside it", func(v string) {
			copyFile(t, first(v), filepath.Join(v, ".coffer", "journal.0007"))
			change(filepath.Join(v, ".coffer", "journal.0007"), func(b []byte) []byte { clear(b[100_352:]); return b })
		}, false, true},
		{"something else", func(v string) { writeFile(t, filepath.Join(v, ".coffer", "journal.0009"), "junk") }, true, true}, // as one that was being made
		{"conflict copy", func(v string) { copyFile(t, first(v), first(v)+" (conflicted copy)") }, true, true},
		{"state lost", func(v string) { noError(t, os.Remove(filepath.Join(v, ".coffer", "state"))) }, false, true},
		{"state emptied", func(v string) { noError(t, os.Truncate(filepath.Join(v, ".coffer", "state"), 0)) }, false, true},
		{"newer slot of the state", func(v string) { // the older one says that no session is open
			change(filepath.Join(v, ".coffer", "state"), func(b []byte) []byte {
				at := 0
				if binary.LittleEndian.Uint64(b[16:]) < binary.LittleEndian.Uint64(b[4096+16:]) {
					at = 4096
				}
				b[at+100] ^= 1
				return b
			})
		}, false, true},
		{"state and journal", func(v string) {
			noError(t, os.Remove(filepath.Join(v, ".coffer", "state")))
			rot(100_000, 1)(v)
		}, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := b.path(strings.ReplaceAll(test.name, " ", "-"))
			if out, err := exec.Command("cp", "-a", good, v).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, out)
			}
			test.damage(v)
			mp := b.mkdir("plain")
			if test.mounts {
				unchanged(t, func() { b.run(passphrase+"\n", "verify", v) }, v)
			} else {
				if r := b.run(passphrase+"\n", "mount", "--recover", v, mp); r.code != int(exitDamage) || !strings.Contains(r.stderr, "coffer verify --repair") {
					t.Errorf("mount: exit %d: %s", r.code, r.stderr)
				}
				unchanged(t, func() {
					r := b.run(passphrase+"\n", "verify", v)
					if r.code != int(exitDamage) || !strings.Contains(r.stdout, "damage: host file .coffer/") {
						t.Errorf("verify: exit %d\n%s%s", r.code, r.stdout, r.stderr)
					}
					if strings.HasPrefix(test.name, "rot") && !strings.Contains(r.stdout, "damage: report: ") {
						t.Errorf("verify does not name the file:\n%s", r.stdout)
					}
					if r := b.run(passphrase+"\n", "verify", "--repair", "--dry-run", v); r.code != int(exitDamage) {
						t.Errorf("dry run: exit %d\n%s%s", r.code, r.stdout, r.stderr)
					}
				}, v)
			}
			r := b.ok(passphrase+"\n", "verify", "--repair", "--recover", v)
			if aside, _ := filepath.Glob(filepath.Join(v, ".coffer", "lost", "journal.*")); !test.mounts && len(aside) == 0 {
				t.Errorf("nothing was put aside:\n%s", r.stdout)
			}
			if r := b.run(passphrase+"\n", "verify", v); r.code != 0 {
				t.Errorf("after the repair: exit %d\n%s%s", r.code, r.stdout, r.stderr)
			}
			b.mount(v, "plain")
			defer b.ok("", "umount", mp)
			got := readFile(t, filepath.Join(mp, "report"))
			changes := 0
			for changes < 20 && got[changes*20_000] == byte('b'+changes) {
				changes++
			}
			want := []byte(strings.Repeat("a", 500_000))
			for i := range changes {
				copy(want[i*20_000:], strings.Repeat(string(rune('b'+i)), 4000))
			}
			if got != string(want) || test.whole && changes != 20 {
				t.Errorf("the file has %d changes of 20, or not these alone", changes)
			}
			if got := readFile(t, filepath.Join(mp, "other")); got != strings.Repeat("o", 100_000) {
				t.Error("a file that was not touched differs")
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	noError(t, err)
	noError(t, os.WriteFile(to, data, 0o600))
}
