package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
)

// headerOf builds the header of an empty container, byte by byte from FORMAT.md section 7.
func headerOf(mk *keys.MasterKey, id keys.VaultID, p keys.FileParams) []byte {
	file := keys.RandomObjectID()
	ring := keys.NewRing(mk, id)
	defer ring.Destroy()
	k := ring.File(file, p)
	le := binary.LittleEndian
	b := make([]byte, 4096)
	copy(b, "COFFERC1")
	le.PutUint16(b[12:], 1)
	b[14], b[15] = byte(p.Suite), p.Digest
	le.PutUint32(b[16:], p.SegmentSize)
	le.PutUint32(b[20:], p.FrameSize)
	le.PutUint32(b[36:], p.Epoch)
	copy(b[40:], id[:])
	copy(b[56:], file[:])
	copy(b[72:], k.Commitment[:])
	le.PutUint64(b[104:], 1)
	b[173] = 1
	mac := hmac.New(sha256.New, k.Auth[:])
	mac.Write([]byte("coffer header v1"))
	mac.Write(b[:4064])
	copy(b[4064:], mac.Sum(nil))
	le.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// addContainer puts a container somewhere below path.
func addContainer(t *testing.T, path, name string) {
	t.Helper()
	cfg, mk := unlock(t, path, testPass)
	name = filepath.Join(path, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, name, headerOf(mk, cfg.VaultID, cfg.Params))
}

var newPass = []byte("written down somewhere else")

// TestRecover: the recovery key sets a new passphrase whatever is left of .coffer, and whatever else lies about in the vault.
func TestRecover(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, path string){
		"passphrase": func(*testing.T, string) {},
		"config and backup": func(t *testing.T, path string) {
			remove(t, coffer(path, configName), coffer(path, backupName))
		},
		"config damaged": func(t *testing.T, path string) {
			for _, name := range []string{configName, backupName} {
				b := read(t, coffer(path, name))
				write(t, coffer(path, name), b[:len(b)/2])
			}
		},
		"config of another vault": func(t *testing.T, path string) {
			other, _ := newVault(t)
			for _, name := range []string{configName, backupName} {
				write(t, coffer(path, name), read(t, coffer(other, name)))
			}
		},
		"config only": func(t *testing.T, path string) { write(t, coffer(path, configName), []byte("{}")) },
		"fifo": func(t *testing.T, path string) {
			remove(t, coffer(path, configName), coffer(path, backupName))
			if err := unix.Mkfifo(coffer(path, configName), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"everything": func(t *testing.T, path string) {
			if err := os.RemoveAll(coffer(path, "")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			p := Params{Suite: "xchacha20-poly1305", Digest: "none", SegmentSize: 16 << 10, FrameSize: 4 << 10}
			recovery, err := Create(path, Options{Params: p, KDF: testKDF}, testPass)
			if err != nil {
				t.Fatal(err)
			}
			old, _ := unlock(t, path, testPass)
			addContainer(t, path, "a/b/c")
			// What else lies about is passed over.
			other, _ := newVault(t)
			addContainer(t, other, "x")
			write(t, filepath.Join(path, "a", "0"), read(t, filepath.Join(other, "x")))
			write(t, filepath.Join(path, "short"), []byte("COFFERC1"))
			if err := unix.Mkfifo(filepath.Join(path, "pipe"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/dev/zero", filepath.Join(path, "link")); err != nil {
				t.Fatal(err)
			}
			lose(t, path)
			if err := Recover(path, strings.ToLower(recovery), newPass, testKDF, nil); err != nil {
				t.Fatal(err)
			}
			cfg, mk := unlock(t, path, newPass)
			if cfg.VaultID != old.VaultID || cfg.VaultParams() != p || cfg.Params != old.Params || len(cfg.Slots) != 1 || cfg.differs {
				t.Errorf("recovered %+v", cfg)
			}
			if _, err := cfg.Unlock(testPass); !errors.Is(err, ErrPassphrase) {
				t.Errorf("the old passphrase: %v", err)
			}
			_, err = os.Lstat(coffer(path, damagedName))
			kept := name != "passphrase" && name != "config and backup" && name != "everything"
			if kept == errors.Is(err, fs.ErrNotExist) {
				t.Errorf("config.damaged: %v", err)
			}
			v, err := Open(path, cfg, mk, OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if v.Unclean() != (name == "everything") {
				t.Errorf("unclean %v", v.Unclean())
			}
			closeVault(t, v)
		})
	}
}

// TestRecoverRefuses: wrong keys, and containers that are changed in any field that a config is made from, leave the vault as it is.
func TestRecoverRefuses(t *testing.T) {
	path, recovery := newVault(t)
	_, otherKey := newVault(t)
	wantErr(t, Recover(path, recovery, nil, testKDF, nil), ErrEmptyPassphrase)
	wantErr(t, Recover(path, recovery[:len(recovery)-2], newPass, testKDF, nil), keys.ErrRecoveryText)
	swapped := recovery[5:10] + recovery[:5] + recovery[10:]
	wantErr(t, Recover(path, swapped, newPass, testKDF, nil), keys.ErrRecoveryChecksum)
	wantErr(t, Recover(path, otherKey, newPass, testKDF, nil), ErrRecoveryKey) // the config says so
	addContainer(t, path, "f")
	header := read(t, filepath.Join(path, "f"))
	remove(t, filepath.Join(path, "f"))
	remove(t, coffer(path, configName), coffer(path, backupName))
	wantErr(t, Recover(path, recovery, newPass, testKDF, nil), ErrNoContainer)
	write(t, filepath.Join(path, "f"), header)
	before := snapshot(t, path)
	wantErr(t, Recover(path, otherKey, newPass, testKDF, nil), ErrRecoveryKey) // the container says so
	if after := snapshot(t, path); after != before {
		t.Errorf("a refused recovery changed the vault:\n%s\n%s", before, after)
	}
	// No byte of what the config is made from can be changed.
	for _, at := range []int{0, 8, 12, 14, 15, 17, 21, 24, 36, 40, 56, 72, 104, 200, 600, 4064} {
		bad := append([]byte(nil), header...)
		bad[at] ^= 1
		if at != 8 {
			clear(bad[8:12])
			binary.LittleEndian.PutUint32(bad[8:], crc32.Checksum(bad, castagnoli))
		}
		write(t, filepath.Join(path, "f"), bad)
		if err := Recover(path, recovery, newPass, testKDF, nil); !errors.Is(err, ErrNoContainer) && !errors.Is(err, ErrRecoveryKey) {
			t.Errorf("header byte %d changed: %v", at, err)
		}
	}
}

// A recovery that a crash cuts short can be run again.
func TestRecoverCrash(t *testing.T) {
	for n := 0; ; n++ {
		path, recovery := newVault(t)
		cfg, mk := unlock(t, path, testPass)
		addContainer(t, path, "f")
		write(t, coffer(path, configName), []byte("{}"))
		write(t, coffer(path, backupName), []byte("{}"))
		c := &crasher{at: n, mode: crashTorn}
		root, dir := c.open(t, path)
		slot, err := newSlot(mk, cfg.VaultID, newPass, testKDF, nil, cfg.Created)
		if err != nil {
			t.Fatal(err)
		}
		cfg.warning = &FallbackError{Err: ErrConfig}
		err = replaceSlots(dir, cfg, mk, []Slot{slot})
		root.Close()
		dir.Close()
		if err == nil {
			return
		}
		if err := Recover(path, recovery, newPass, testKDF, nil); err != nil {
			t.Fatalf("crash at call %d: %v", n, err)
		}
		unlock(t, path, newPass)
	}
}
