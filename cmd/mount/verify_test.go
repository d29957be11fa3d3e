package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cofferfs/coffer/container/check"
)

// findings are those of an output with --json, and its summary.
func parseFindings(t *testing.T, out string) (all []check.Finding, sum check.Summary) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		var f check.Finding
		var err error
		if strings.Contains(lines.Text(), `"kind":"summary"`) {
			err = json.Unmarshal(lines.Bytes(), &sum)
		} else if err = json.Unmarshal(lines.Bytes(), &f); err == nil {
			all = append(all, f)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
	}
	return all, sum
}

// biggest is the largest regular file below dir.
func biggest(t *testing.T, dir string) string {
	t.Helper()
	var name string
	var size int64 = -1
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".coffer" {
			return filepath.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil && info.Size() > size {
				name, size = path, info.Size()
			}
		}
		return err
	})
	if err != nil || name == "" {
		t.Fatalf("no file in %s: %v", dir, err)
	}
	return name
}

// TestVerifyAndScrub runs both on a good vault, a mounted one and a damaged one.
func TestVerifyAndScrub(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("v")
	mp := b.mount(v, "m")
	if err := os.Mkdir(filepath.Join(mp, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(mp, "dir", "report"), strings.Repeat("text ", 100_000))
	writeFile(t, filepath.Join(mp, "note"), "short")
	b.fails(exitInUse, "mounted", "", "scrub", v)
	b.ok("", "umount", mp)

	unchanged(t, func() {
		if out := b.ok(passphrase+"\n", "verify", v).stdout; !strings.Contains(out, "checked 3 objects in 2 directories") || !strings.Contains(out, "no damage") {
			t.Errorf("verify says:\n%s", out)
		}
		if out := b.ok("", "scrub", v).stdout; !strings.Contains(out, "no damage") {
			t.Errorf("scrub says:\n%s", out)
		}
		b.fails(exitPassphrase, "wrong passphrase", "no\n", "verify", v)
		b.fails(exitVaultDir, "", "", "scrub", b.path("nowhere"))
	}, v)

	// Frame 2 of segment 1: behind header and meta block.
	changeByte(t, biggest(t, v), 8192+65536+2*4096+7)
	unchanged(t, func() {
		r := b.run(passphrase+"\n", "verify", v)
		if r.code != int(exitDamage) || !strings.Contains(r.stdout, "damage: dir/report: bytes 73728 to 77823 of 500000: authentication failed") ||
			!strings.Contains(r.stderr, "coffer: the vault is damaged: 1 finding, 4096 bytes lost\nhint: ") {
			t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		all, sum := parseFindings(t, b.run(passphrase+"\n", "verify", "--json", v).stdout)
		if len(all) != 1 || all[0].Path != "dir/report" || *all[0].Bytes != (check.Range{From: 73728, To: 77824, Size: 500000}) || *all[0].Segment != 1 || *all[0].Frame != 2 ||
			sum.Damage != 1 || sum.LostBytes != 4096 {
			t.Errorf("%+v %+v", all, sum)
		}
		r = b.run("", "scrub", "--json", v)
		all, sum = parseFindings(t, r.stdout)
		if r.code != int(exitDamage) || len(all) != 1 || all[0].Path != "" || *all[0].Segment != 1 || *all[0].Frame != 2 || sum.Damage != 1 {
			t.Errorf("exit %d: %+v %+v", r.code, all, sum)
		}
	}, v)
}

// TestRepair saves what is left of a file, and says what is not.
func TestRepair(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("v")
	mp := b.mount(v, "m")
	text := strings.Repeat("text ", 100_000)
	writeFile(t, filepath.Join(mp, "report"), text)
	writeFile(t, filepath.Join(mp, "gone"), strings.Repeat("gone ", 1000))
	if err := os.Chmod(filepath.Join(mp, "report"), 0o604); err != nil {
		t.Fatal(err)
	}
	b.ok("", "umount", mp)
	changeByte(t, biggest(t, v), 8192+65536+2*4096+7)

	b.fails(exitUsage, "belong to --repair", "", "verify", "--dry-run", v)
	unchanged(t, func() {
		r := b.run(passphrase+"\n", "verify", "--repair", "--dry-run", v)
		if r.code != int(exitDamage) || !strings.Contains(r.stdout, "would be rebuilt: report: 495904 bytes saved, 4096 lost; lost: bytes 73728 to 77823 of 500000") {
			t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	}, v)
	r := b.run(passphrase+"\n", "verify", "--repair", "--json", v)
	if r.code != 0 || !strings.Contains(r.stdout, `{"kind":"rebuilt","path":"report",`) || !strings.Contains(r.stdout, `"lost":[{"from":73728,"to":77824,"size":500000}]`) {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	b.ok(passphrase+"\n", "verify", v)
	b.ok("", "scrub", v)
	b.mount(v, "m")
	want := text[:73728] + strings.Repeat("\x00", 4096) + text[77824:]
	if got := readFile(t, filepath.Join(mp, "report")); got != want {
		t.Error("the file is not what it was with zeros where it was lost")
	}
	if st, err := os.Stat(filepath.Join(mp, "report")); err != nil || st.Mode().Perm() != 0o604 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := os.Remove(filepath.Join(mp, "report")); err != nil {
		t.Fatal(err)
	}
	b.fails(exitInUse, "a mounted vault is not repaired", passphrase+"\n", "verify", "--repair", v)
	b.ok("", "umount", mp)

	// Nothing is left of this one.
	if err := os.Truncate(biggest(t, v), 0); err != nil {
		t.Fatal(err)
	}
	r = b.run(passphrase+"\n", "verify", "--repair", v)
	if r.code != int(exitDamage) || !strings.Contains(r.stdout, "kept: gone: nothing of it opens") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// TestScrubUnclean names what an unclean vault has pending apart from damage.
func TestScrubUnclean(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("v")
	mp := b.mount(v, "m")
	writeFile(t, filepath.Join(mp, "note"), strings.Repeat("text ", 2000))
	b.ok("", "umount", mp)
	changeByte(t, biggest(t, v), 8192+7)
	state := filepath.Join(v, ".coffer", "state")
	slots, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	unclean(slots[:4096])
	unclean(slots[4096:])
	if err := os.WriteFile(state, slots, 0o600); err != nil {
		t.Fatal(err)
	}
	r := b.run("", "scrub", v)
	if r.code != int(exitPending) || strings.Contains(r.stdout, "damage:") || strings.Count(r.stdout, "pending: ") != 2 {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	// Whose config is lost is looked at all the same.
	for _, name := range []string{"config", "config.bak", "state"} {
		if err := os.Remove(filepath.Join(v, ".coffer", name)); err != nil {
			t.Fatal(err)
		}
	}
	r = b.run("", "scrub", v)
	if r.code != int(exitDamage) || strings.Count(r.stdout, "damage: ") != 2 || strings.Count(r.stdout, "pending: ") != 1 {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// unclean makes a state slot one of an open session, as far as a reader without the key can tell.
func unclean(slot []byte) {
	slot[14] = 0
	clear(slot[8:12])
	binary.LittleEndian.PutUint32(slot[8:], crc32.Checksum(slot, crc32.MakeTable(crc32.Castagnoli)))
}

// TestVerifyAfterKill looks at a vault whose daemon was killed: its journal counts for verify, a repair replays it, and scrub says that it waits.
func TestVerifyAfterKill(t *testing.T) {
	b := newBox(t)
	v, _ := b.newVault("v")
	mp := b.mount(v, "m")
	path := filepath.Join(mp, "report")
	writeFile(t, path, strings.Repeat("text ", 50_000))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("over", 3000)), 70_000); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	want := readFile(t, path)
	kill(t, b.daemon(mp))
	f.Close()
	b.ok("", "umount", mp)
	unchanged(t, func() {
		r := b.ok(passphrase+"\n", "verify", v)
		if !strings.Contains(r.stdout, "leftover: host file .coffer/journal.*: the journal of a session") || strings.Contains(r.stdout, "damage:") {
			t.Errorf("verify says:\n%s", r.stdout)
		}
		b.ok(passphrase+"\n", "verify", "--repair", "--dry-run", v)
		if r := b.run("", "scrub", v); r.code != int(exitPending) || !strings.Contains(r.stdout, "waits to be replayed") {
			t.Errorf("exit %d: scrub says:\n%s", r.code, r.stdout)
		}
	}, v)
	b.ok(passphrase+"\n", "verify", "--repair", v)
	b.ok("", "scrub", v)
	b.mount(v, "m")
	if readFile(t, path) != want {
		t.Error("what was synced is not there")
	}
}
