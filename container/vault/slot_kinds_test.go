package vault

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/cofferfs/coffer/container/keys"
)

var testKeyFile = bytes.Repeat([]byte("key file "), 8)

func newIdentity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// addAll adds a slot of each kind and returns the hybrid's identity beside the classic one.
func addAll(t *testing.T, path string) (*age.X25519Identity, *age.HybridIdentity) {
	t.Helper()
	cfg, mk := unlock(t, path, testPass)
	classic := newIdentity(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	pass, err1 := cfg.PassphraseSlot(mk, []byte("second"), testKDF)
	file, err2 := cfg.KeyFileSlot(mk, testKeyFile)
	one, err3 := cfg.AgeSlot(mk, classic.Recipient().String(), classic.Recipient())
	two, err4 := cfg.AgeSlot(mk, hybrid.Recipient().String(), hybrid.Recipient())
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	for i, s := range []Slot{pass, file, one, two} {
		s.Label = "slot " + string(rune('a'+i)) + ` <"ü">`
		if err := AddSlot(path, mk, s); err != nil {
			t.Fatal(err)
		}
	}
	return classic, hybrid
}

func TestSlotKinds(t *testing.T) {
	path, _ := newVault(t)
	v := open(t, path, OpenOptions{}) // while mounted
	_, want := unlock(t, path, testPass)
	classic, hybrid := addAll(t, path)
	cfg, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Slots) != 5 || cfg.Slots[3].Recipient != classic.Recipient().String() || cfg.Slots[2].Label != `slot b <"ü">` {
		t.Fatalf("slots %+v", cfg.Slots)
	}
	for i, secret := range []Secret{Passphrase(testPass), Passphrase([]byte("second")), KeyFile(testKeyFile), Identities(classic),
		Identities(newIdentity(t), hybrid)} {
		mk, s, err := cfg.UnlockWith(secret)
		if err != nil {
			t.Fatalf("secret %d: %v", i, err)
		}
		if !bytes.Equal(mk.Bytes(), want.Bytes()) || s.ID != cfg.Slots[i].ID {
			t.Errorf("secret %d: slot %x opened", i, s.ID)
		}
		mk.Destroy()
	}
	for _, c := range []struct {
		secret Secret
		want   error
	}{
		{KeyFile(testKeyFile[1:]), ErrKeyFile},
		{KeyFile(testKeyFile[:MinKeyFile-1]), ErrKeyFileSize},
		{KeyFile(make([]byte, MaxKeyFile+1)), ErrKeyFileSize},
		{Identities(newIdentity(t)), ErrIdentity},
		{Identities(), ErrIdentity},
		{Passphrase(testKeyFile), ErrPassphrase}, // what opens a slot of one kind opens none of another
		{Passphrase(nil), ErrEmptyPassphrase},
	} {
		_, _, err := cfg.UnlockWith(c.secret)
		wantErr(t, err, c.want)
	}
	closeVault(t, v)
}

// Each change of a passphrase and each recovery leaves the slots of other kinds alone.
func TestOtherSlotsStay(t *testing.T) {
	path, recovery := newVault(t)
	addAll(t, path)
	before, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := changePassphrase(path, []byte("second"), []byte("changed"), KDF{}); err != nil {
		t.Fatal(err)
	}
	cfg, _ := unlock(t, path, []byte("changed"))
	if _, err := cfg.Unlock(testPass); err != nil || len(cfg.Slots) != 5 || cfg.Slots[1].Label != before.Slots[1].Label || cfg.Slots[1].ID != before.Slots[1].ID {
		t.Errorf("the other passphrase: %v; slots %+v", err, cfg.Slots)
	}
	if err := Recover(path, recovery, []byte("recovered"), testKDF, nil); err != nil {
		t.Fatal(err)
	}
	cfg, _ = unlock(t, path, []byte("recovered"))
	if len(cfg.Slots) != 4 || cfg.Slots[1].ID != before.Slots[2].ID || cfg.Slots[3].ID != before.Slots[4].ID {
		t.Errorf("after recovery: slots %+v", cfg.Slots)
	}
	for _, old := range []string{"changed", string(testPass)} {
		_, err := cfg.Unlock([]byte(old))
		wantErr(t, err, ErrPassphrase)
	}
}

// A slot that was removed is in no file of .coffer, whatever stood there before.
func TestRemoveSlot(t *testing.T) {
	path, _ := newVault(t)
	addAll(t, path)
	cfg, mk := unlock(t, path, testPass)
	v := open(t, path, OpenOptions{}) // while mounted
	old := read(t, coffer(path, configName))
	wantErr(t, RemoveSlot(path, mk, [8]byte{1}), ErrNoSlot)
	other := keys.NewMasterKey()
	defer other.Destroy()
	wantErr(t, RemoveSlot(path, other, cfg.Slots[0].ID), ErrTampered)
	for i, s := range cfg.Slots[1:] {
		write(t, coffer(path, tempName), old)
		write(t, coffer(path, damagedName), old)
		if i == 1 { // the backup stands in
			write(t, coffer(path, configName), old[:100])
		}
		if err := RemoveSlot(path, mk, s.ID); err != nil {
			t.Fatal(err)
		}
		wantNowhere(t, path, s)
	}
	wantErr(t, RemoveSlot(path, mk, cfg.Slots[0].ID), ErrLastSlot)
	unlock(t, path, testPass)
	closeVault(t, v)
}

// wantNowhere fails where any file of .coffer has what the slot wraps.
func wantNowhere(t *testing.T, path string, s Slot) {
	t.Helper()
	files, err := os.ReadDir(coffer(path, ""))
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if strings.Contains(string(read(t, coffer(path, f.Name()))), s.toJSON().Wrapped) {
			t.Errorf("the slot is in %s", f.Name())
		}
	}
}

// A crash at any host call of a removal leaves a config that opens; a second call, or the next Open, finishes it.
func TestRemoveSlotCrash(t *testing.T) {
	for n := 0; ; n++ {
		path, _ := newVault(t)
		cfg, mk := unlock(t, path, testPass)
		slot, err := cfg.KeyFileSlot(mk, testKeyFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := AddSlot(path, mk, slot); err != nil {
			t.Fatal(err)
		}
		write(t, coffer(path, damagedName), read(t, coffer(path, configName)))
		c := &crasher{at: n, mode: crashTorn}
		root, dir := c.open(t, path)
		err = removeSlot(dir, mk, slot.ID)
		root.Close()
		dir.Close()
		if !c.crashed {
			if err != nil || n < 9 {
				t.Fatalf("%v after %d host calls", err, n)
			}
			wantNowhere(t, path, slot)
			return
		}
		unlock(t, path, testPass)
		err = RemoveSlot(path, mk, slot.ID)
		if err != nil && !errors.Is(err, ErrNoSlot) {
			t.Fatalf("crash at call %d, second removal: %v", n, err)
		}
		if _, derr := os.Stat(coffer(path, damagedName)); errors.Is(err, ErrNoSlot) && derr == nil {
			t.Fatalf("crash at call %d: config.damaged stays and nothing says so", n)
		}
		wantNowhere(t, path, slot)
	}
}

// Several processes that add slots at once all succeed.
func TestAddSlotsAtOnce(t *testing.T) {
	path, _ := newVault(t)
	cfg, mk := unlock(t, path, testPass)
	const n = 8
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s, err := cfg.KeyFileSlot(mk, testKeyFile)
			errs[i] = errors.Join(err, AddSlot(path, mk, s))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if cfg, _ = unlock(t, path, testPass); len(cfg.Slots) != 1+n {
		t.Errorf("%d slots", len(cfg.Slots))
	}
}

func TestAddSlotRefuses(t *testing.T) {
	path, _ := newVault(t)
	cfg, mk := unlock(t, path, testPass)
	s, err := cfg.KeyFileSlot(mk, testKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{strings.Repeat("x", maxLabel+1), "a\nb", "\xff", "\x1b[0m"} {
		s.Label = label
		wantErr(t, AddSlot(path, mk, s), ErrLabel)
	}
	s.Label = ""
	for len(cfg.Slots) < maxSlots {
		s.ID = [8]byte{byte(len(cfg.Slots))}
		if err := AddSlot(path, mk, s); err != nil {
			t.Fatal(err)
		}
		cfg.Slots = append(cfg.Slots, s)
	}
	before := read(t, coffer(path, configName))
	s.ID = [8]byte{0xff}
	wantErr(t, AddSlot(path, mk, s), ErrSlots)
	s.ID = [8]byte{0xfe}
	wantErr(t, ReplaceSlot(path, mk, s), ErrNoSlot)
	if !bytes.Equal(before, read(t, coffer(path, configName))) {
		t.Error("a refused slot changed the config")
	}
	for _, text := range []string{"", "age1", "AGE1X", "age1ü", "age1 x", "ssh-ed25519 AAAA", "age1" + strings.Repeat("q", maxRecipient)} {
		_, err := cfg.AgeSlot(mk, text, newIdentity(t).Recipient())
		wantErr(t, err, ErrRecipient)
	}
}

// Whoever knows a recipient can make an age file, and the identity opens it: it must not pass for the slot's.
func TestForgedAgeFile(t *testing.T) {
	path, _ := newVault(t)
	cfg, mk := unlock(t, path, testPass)
	id := newIdentity(t)
	s, err := cfg.AgeSlot(mk, id.Recipient().String(), id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]error{ageSecretSize: ErrIdentity, 0: ErrTampered, ageSecretSize - 1: ErrTampered, ageSecretSize + 1: ErrTampered, 1 << 15: ErrTampered} {
		forged := s
		if forged.AgeFile, err = encryptTo(id.Recipient(), make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		_, err := forged.unwrap(cfg.VaultID, Identities(id), nil)
		wantErr(t, err, want)
	}
	torn := s
	torn.AgeFile = s.AgeFile[:len(s.AgeFile)-1]
	_, err = torn.unwrap(cfg.VaultID, Identities(id), nil)
	wantErr(t, err, ErrTampered)
	torn.AgeFile = []byte("no age file")
	_, err = torn.unwrap(cfg.VaultID, Identities(id), nil)
	wantErr(t, err, ErrAgeFailed)
}

// failingIdentity is that of a plugin whose device is not there.
type failingIdentity struct{}

var errNoDevice = errors.New("no device")

func (failingIdentity) Unwrap([]*age.Stanza) ([]byte, error) { return nil, errNoDevice }

func TestIdentityFails(t *testing.T) {
	path, _ := newVault(t)
	addAll(t, path)
	cfg, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = cfg.UnlockWith(Identities(failingIdentity{}))
	wantErr(t, err, ErrAgeFailed)
	wantErr(t, err, errNoDevice)
}

// One that holds the config lock for a moment is waited for.
func TestWaitForConfig(t *testing.T) {
	path, _ := newVault(t)
	cfg, mk := unlock(t, path, testPass)
	s, err := cfg.KeyFileSlot(mk, testKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lockConfigAt(t, path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- AddSlot(path, mk, s) }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	l.close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, cofferDir, tempName)); err == nil {
		t.Error("a temporary file is left")
	}
}
