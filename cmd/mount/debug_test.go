package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/journal"
)

// crashed leaves a vault as a crash does, with what fn appends to its journal.
func (b *box) crashed(path string, fn func(j *journal.Journal)) {
	b.t.Helper()
	cfg, err := vault.ReadConfig(path)
	noError(b.t, err)
	mk, err := cfg.Unlock([]byte(passphrase))
	noError(b.t, err)
	defer mk.Destroy()
	v, err := vault.Open(path, cfg, mk, vault.OpenOptions{})
	noError(b.t, err)
	j, err := journal.New(v.Journal())
	noError(b.t, err)
	fn(j)
	noError(b.t, j.Sync(j.End()))
	noError(b.t, j.Close(false))
	noError(b.t, v.CloseUnclean())
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// digest of everything in a vault: names and bytes.
func everything(t *testing.T, path string) string {
	t.Helper()
	var all bytes.Buffer
	noError(t, filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		noError(t, err)
		content, err := os.ReadFile(name)
		all.WriteString(name + info.ModTime().String())
		all.Write(content)
		return err
	}))
	return all.String()
}

// TestDebugJournal: every kind of transaction is listed, and what makes no sense is named; the vault stays as it is.
func TestDebugJournal(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("v")
	if r := b.ok(passphrase+"\n", "debug", "journal", v); !strings.Contains(r.stdout, "no journal") {
		t.Errorf("of a clean vault: %s", r.stdout)
	}
	b.crashed(v, func(*journal.Journal) {})
	if r := b.ok(passphrase+"\n", "debug", "journal", v); !strings.Contains(r.stdout, "journal is empty") {
		t.Errorf("of an empty journal: %s", r.stdout)
	}
	id := keys.RandomObjectID()
	b.crashed(v, func(j *journal.Journal) {
		h := redo.Head{ID: id, Path: []string{"d", "e", "f"}, Length: 8192, Timed: true, Mtime: unix.Timespec{Sec: 1e9, Nsec: 5},
			Freed: []redo.Range{{Off: 0, Len: 12288}}, Images: []redo.Range{{Off: 0, Len: 4096}, {Off: 8192, Len: 10}}}
		_, err := j.Append(journal.Entry{Head: h.Append(nil), Bulk: [][]byte{make([]byte, 4106)}})
		noError(t, err)
		_, err = j.Append(journal.Entry{Head: (&redo.Exchange{ID: 0xabc, Over: true}).Append(nil)})
		noError(t, err)
	})
	before := everything(t, v)
	out := b.ok(passphrase+"\n", "debug", "journal", v).stdout
	for _, want := range []string{"file  " + id.String(), "  3  ", "  2  ", "4106", "12288", "8192", "2001-09-09T01:46:40.000000005Z", "over", "0000000000000abc", "2 transactions"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var info journalInfo
	noError(t, json.Unmarshal([]byte(b.ok(passphrase+"\n", "debug", "journal", "--json", v).stdout), &info))
	if x := info.Transactions; len(x) != 2 || strings.Join(x[0].Path, "/") != "d/e/f" || *x[0].Length != 8192 || x[1].Kind != "over" || info.Torn || info.Lost || !info.Pending || info.Pieces != 1 {
		t.Errorf("%+v", info)
	}
	if everything(t, v) != before {
		t.Error("the vault was changed")
	}
	b.fails(exitPassphrase, "wrong passphrase", "wrong\n", "debug", "journal", v)
	b.fails(exitUsage, "a command is missing", "", "debug")
	b.fails(exitUsage, "unknown command", "", "debug", "x")

	v, _ = b.newVault("names")
	b.crashed(v, func(j *journal.Journal) {
		for _, head := range [][]byte{
			(&redo.Head{ID: id, Path: []string{"f"}, Length: 4096, Made: &redo.Made{Mode: 0o600}}).Append(nil),
			(&redo.End{ID: id}).Append(nil), (&redo.End{ID: id, Removed: true, Path: []string{"f"}}).Append(nil),
		} {
			_, err := j.Append(journal.Entry{Head: head})
			noError(t, err)
		}
	})
	out = b.ok(passphrase+"\n", "debug", "journal", v).stdout
	for _, want := range []string{"make     " + id.String(), "ended    " + id.String(), "removed  " + id.String()} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}

	// What makes no sense is shown, and named; a mount refuses it.
	v, _ = b.newVault("w")
	b.crashed(v, func(j *journal.Journal) {
		_, err := j.Append(journal.Entry{Head: []byte{9, 9}})
		noError(t, err)
		_, err = j.Append(journal.Entry{Head: (&redo.Head{ID: id, Length: -1}).Append(nil)})
		noError(t, err)
	})
	r := b.run(passphrase+"\n", "debug", "journal", v)
	if r.code != int(exitConfig) || !strings.Contains(r.stderr, "unknown kind") || !strings.Contains(r.stdout, "malformed") || !strings.Contains(r.stdout, id.String()) {
		t.Errorf("exit %d, %s\n%s", r.code, r.stderr, r.stdout)
	}
	b.fails(exitConfig, "unknown kind", passphrase+"\n", "mount", v, b.mkdir("m"))
	b.fails(exitConfig, "unknown kind", passphrase+"\n", "mount", "-o", "ro", v, b.path("m"))
}

// A mount replays what a crash left; the vault is closed to others meanwhile, and holds no journal afterwards.
func TestMountReplays(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("v")
	b.crashed(v, func(j *journal.Journal) {
		_, err := j.Append(journal.Entry{Head: (&redo.Head{ID: keys.RandomObjectID(), Length: -1, Timed: true}).Append(nil)})
		noError(t, err)
	})
	mp := b.mount(v, b.mkdir("m"))
	b.fails(exitInUse, "in use", passphrase+"\n", "debug", "journal", v)
	b.ok("", "umount", mp)
	if r := b.ok(passphrase+"\n", "debug", "journal", v); !strings.Contains(r.stdout, "no journal") {
		t.Errorf("after the mount: %s", r.stdout)
	}
}
