package integration

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
)

// goldenKeys is the golden vault with a key slot of each kind. TestGoldenKeys with -update makes it anew, and only it.
var goldenKeys = goldenSpec{"key_slots", vault.Params{}, 1, false}

const keyFile, identityFile, hybridFile = "keyfile", "identity.txt", "identity_pq.txt"

// TestGoldenKeys: every secret of the vault opens it, for Go and for the reader.
func TestGoldenKeys(t *testing.T) {
	spec := goldenKeys
	if *updateGolden {
		spec.writeKeys(t)
	}
	dir, want := spec.unpack(t)
	cfg, err := vault.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Slots) != 4 || cfg.Slots[1].Label != "golden key file" || cfg.Slots[2].Kind != vault.KindAge {
		t.Errorf("slots %+v", cfg.Slots)
	}
	pass, recovery := spec.secrets(t)
	raw, err := keys.DecodeRecovery(recovery)
	if err != nil {
		t.Fatal(err)
	}
	for i, secret := range []vault.Secret{vault.Passphrase(pass), vault.KeyFile(spec.read(t, keyFile)), spec.identities(t, identityFile), spec.identities(t, hybridFile)} {
		mk, slot, err := cfg.UnlockWith(secret)
		if err != nil {
			t.Errorf("secret %d: %v", i, err)
			continue
		}
		if slot.ID != cfg.Slots[i].ID || !bytes.Equal(mk.Bytes(), raw) {
			t.Errorf("secret %d opens slot %x, or another key", i, slot.ID)
		}
		mk.Destroy()
	}

	needPython(t)
	for _, secret := range []string{"--passphrase-file=" + spec.file(passFile), "--keyfile=" + spec.file(keyFile),
		"--identity=" + spec.file(identityFile), "--recovery-key-file=" + spec.file(recoveryFile)} {
		got, stderr, err := readByPython(dir, secret)
		if err != nil {
			t.Fatalf("%s: %v\n%s", secret, err, stderr)
		}
		sameManifest(t, got, want)
	}
	// What is another's is refused, by both.
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, []byte(other.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := cfg.UnlockWith(vault.Identities(other)); !errors.Is(err, vault.ErrIdentity) {
		t.Errorf("another identity: %v", err)
	}
	for flag, message := range map[string]string{"--keyfile=": "refused: wrong key file\n", "--identity=": "refused: wrong identity\n"} {
		if _, stderr, err := readByPython(dir, flag+wrong); err == nil || stderr != message {
			t.Errorf("%s%s: %v, %q", flag, wrong, err, stderr)
		}
	}
}

func (spec goldenSpec) read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(spec.file(name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (spec goldenSpec) identities(t *testing.T, name string) vault.Secret {
	t.Helper()
	ids, err := age.ParseIdentities(bytes.NewReader(spec.read(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return vault.Identities(ids...)
}

func (spec goldenSpec) writeKeys(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	recovery := spec.fill(t, dir, false)
	cfg, err := vault.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	mk, err := cfg.Unlock([]byte(goldenPass))
	if err != nil {
		t.Fatal(err)
	}
	defer mk.Destroy()
	contents := make([]byte, 64)
	rand.Read(contents)
	classic, err1 := age.GenerateX25519Identity()
	hybrid, err2 := age.GenerateHybridIdentity()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	file, err1 := cfg.KeyFileSlot(mk, contents)
	file.Label = "golden key file"
	one, err2 := cfg.AgeSlot(mk, classic.Recipient().String(), classic.Recipient())
	two, err3 := cfg.AgeSlot(mk, hybrid.Recipient().String(), hybrid.Recipient())
	two.Label = "golden hybrid"
	if err := errors.Join(err1, err2, err3, vault.AddSlot(dir, mk, file), vault.AddSlot(dir, mk, one), vault.AddSlot(dir, mk, two)); err != nil {
		t.Fatal(err)
	}
	spec.store(t, dir, recovery)
	for name, content := range map[string][]byte{
		keyFile: contents, identityFile: []byte(classic.String() + "\n"), hybridFile: []byte(hybrid.String() + "\n"),
	} {
		if err := os.WriteFile(spec.file(name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
