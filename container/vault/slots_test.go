package vault

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"github.com/cofferfs/coffer/internal/disk"
)

// Known answers of the reference implementation (phc-winner-argon2, src/test.c, version 0x13). RFC 9106's own vector uses a
// secret and associated data, which x/crypto/argon2 does not offer.
func TestArgon2id(t *testing.T) {
	for _, c := range []struct {
		time, memory uint32
		threads      uint8
		want         string
	}{
		{2, 1 << 8, 1, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"},
		{2, 1 << 8, 2, "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"},
		{2, 1 << 16, 1, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"},
	} {
		got := argon2.IDKey([]byte("password"), []byte("somesalt"), c.time, c.memory, c.threads, 32)
		if hex.EncodeToString(got) != c.want {
			t.Errorf("t=%d m=%d p=%d: %x", c.time, c.memory, c.threads, got)
		}
		// What the package uses is the same function with the parameters in their places, and 64 bytes of it.
		a, err := DeriveInProcess([]byte("password"), []byte("somesalt"), KDF{Time: c.time, MemoryKiB: c.memory, Threads: c.threads})
		if err != nil || !bytes.Equal(a, argon2.IDKey([]byte("password"), []byte("somesalt"), c.time, c.memory, c.threads, 64)) {
			t.Errorf("t=%d m=%d p=%d: DeriveInProcess differs: %v", c.time, c.memory, c.threads, err)
		}
	}
}

func TestProcessDeriver(t *testing.T) {
	salt := bytes.Repeat([]byte{7}, saltSize)
	k := KDF{Time: 2, MemoryKiB: 64, Threads: 3}
	derive := ProcessDeriver("/proc/self/exe", "test-kdf-worker")
	pass := bytes.Repeat([]byte{0, 'x'}, 100000) // more than a pipe holds
	want, err := DeriveInProcess(pass, salt, k)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := derive(pass, salt, k); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}

	path := t.TempDir()
	if _, err := Create(path, Options{KDF: k}, testPass); err != nil {
		t.Fatal(err)
	}
	cfg, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Derive = derive
	mk, err := cfg.Unlock(testPass)
	if err != nil {
		t.Fatal(err)
	}
	mk.Destroy()

	for _, bad := range []Deriver{
		ProcessDeriver("/proc/self/exe", "-test.run=^$"), // ends without a key
		ProcessDeriver("/bin/false"),
		ProcessDeriver("/does/not/exist"),
	} {
		if _, err := bad(testPass, salt, k); err == nil {
			t.Error("a worker that derives nothing succeeds")
		}
	}
}

func TestWorkerRefuses(t *testing.T) {
	salt := make([]byte, saltSize)
	good := encodeJob(testPass, salt, testKDF)
	for name, job := range map[string][]byte{
		"empty":     nil,
		"cut":       good[:len(good)-1],
		"magic":     append([]byte("X"), good[1:]...),
		"time 0":    encodeJob(testPass, salt, KDF{0, 8, 1}),
		"threads 0": encodeJob(testPass, salt, KDF{1, 8, 0}),
		"memory":    encodeJob(testPass, salt, KDF{1, 1 << 31, 1}),
		"length":    append(append(bytes.Clone(good[:52]), 0xff, 0xff, 0xff, 0xff), good[56:]...),
	} {
		var out bytes.Buffer
		if err := RunKDFWorker(bytes.NewReader(job), &out); err == nil || out.Len() != 0 {
			t.Errorf("%s: error %v, %d bytes of output", name, err, out.Len())
		}
	}
}

func TestKDFBounds(t *testing.T) {
	d := DefaultKDF()
	if err := d.checkMachine(); err != nil || d.Time != 3 || d.Threads != 4 {
		t.Errorf("default %+v: %v", d, err)
	}
	if total := machineMemoryKiB(); total == 0 || uint64(d.MemoryKiB) > max(total/4, 32) {
		t.Errorf("default takes %d KiB of %d", d.MemoryKiB, total)
	}
	// More than the machine has, yet within the format's bounds, where there is such a number.
	if total := machineMemoryKiB(); total < maxMemoryKiB {
		k := KDF{Time: 1, MemoryKiB: uint32(total) + 1024, Threads: 1}
		wantErr(t, k.checkMachine(), ErrKDF)
	}
	_, err := Create(t.TempDir(), Options{KDF: KDF{Time: 1, MemoryKiB: 8, Threads: 2}}, testPass)
	wantErr(t, err, ErrKDF)
}

func TestChangePassphrase(t *testing.T) {
	path, recovery := newVault(t)
	before := string(read(t, coffer(path, configName)))
	v := open(t, path, OpenOptions{}) // while mounted
	later := []byte("another one")
	wantErr(t, changePassphrase(path, []byte("wrong"), later, KDF{}), ErrPassphrase)
	if err := changePassphrase(path, testPass, later, KDF{}); err != nil {
		t.Fatal(err)
	}
	closeVault(t, v)
	cfg, mk := unlock(t, path, later)
	if _, err := cfg.Unlock(testPass); err == nil {
		t.Error("the old passphrase still opens the vault")
	}
	if cfg.Slots[0].KDF != testKDF || len(cfg.Slots) != 1 {
		t.Errorf("slots %+v", cfg.Slots)
	}
	wrapped := before[strings.Index(before, `"wrapped"`):][:90]
	list, err := os.ReadDir(coffer(path, ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.Contains(string(read(t, coffer(path, e.Name()))), wrapped) {
			t.Errorf("%s still has the old slot", e.Name())
		}
	}
	// The key is the same: the recovery key still fits.
	if err := Recover(path, recovery, testPass, testKDF, nil); err != nil {
		t.Fatal(err)
	}
	_, mk2 := unlock(t, path, testPass)
	if !bytes.Equal(mk.Bytes(), mk2.Bytes()) {
		t.Error("the master key changed")
	}

	l, err := lockConfigAt(t, path)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, changePassphrase(path, testPass, later, KDF{}), ErrInUse)
	l.close()
	if err := changePassphrase(path, testPass, later, KDF{2, 16, 2}); err != nil {
		t.Fatal(err)
	}
	if cfg, _ = unlock(t, path, later); cfg.Slots[0].KDF != (KDF{2, 16, 2}) {
		t.Errorf("KDF %+v", cfg.Slots[0].KDF)
	}
}

func lockConfigAt(t *testing.T, path string) (*lockFile, error) {
	root, dir, err := openDirs(path, disk.OpenRoot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close(); dir.Close() })
	return lockConfig(path, dir)
}

// A crash at any host call of a passphrase change leaves a config that the old or the new passphrase opens, and the next Open
// leaves one slot in both files.
func TestChangePassphraseCrash(t *testing.T) {
	later := []byte("another one")
	for n := 0; ; n++ {
		path, _ := newVault(t)
		c := &crasher{at: n, mode: crashTorn}
		root, dir := c.open(t, path)
		cfg, mk := unlock(t, path, testPass)
		slot, err := newSlot(mk, cfg.VaultID, later, testKDF, nil, cfg.Created)
		if err != nil {
			t.Fatal(err)
		}
		err = replaceSlots(dir, cfg, mk, []Slot{slot})
		root.Close()
		dir.Close()
		cfg, rerr := ReadConfig(path)
		if rerr != nil {
			t.Fatalf("crash at call %d: %v", n, rerr)
		}
		pass := later
		if _, uerr := cfg.Unlock(later); uerr != nil {
			pass = testPass
		}
		if err == nil && !bytes.Equal(pass, later) {
			t.Fatalf("crash at call %d: reported done and is not", n)
		}
		cfg, mk = unlock(t, path, pass)
		v, oerr := Open(path, cfg, mk, OpenOptions{})
		if oerr != nil {
			t.Fatalf("crash at call %d: %v", n, oerr)
		}
		closeVault(t, v)
		if !bytes.Equal(read(t, coffer(path, configName)), read(t, coffer(path, backupName))) {
			t.Fatalf("crash at call %d: config and config.bak differ after Open", n)
		}
		if !c.crashed {
			if n < 8 {
				t.Fatalf("only %d host calls were counted", n)
			}
			return
		}
	}
}
