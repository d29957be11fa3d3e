package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
)

// loadVault is loadConfig of a vault as the command line names it, whose absolute path it answers, too.
func (a *app) loadVault(arg string) (path string, cfg *vault.Config, err error) {
	if path, err = absolute(arg); err != nil {
		return "", nil, err
	}
	cfg, err = a.loadConfig(path)
	return path, cfg, err
}

// loadConfig reads a vault's config after saying plainly what is wrong with its directory.
func (a *app) loadConfig(path string) (*vault.Config, error) {
	if err := checkVaultDir(path); err != nil {
		return nil, err
	}
	cfg, err := vault.ReadConfig(path)
	switch {
	case errors.Is(err, vault.ErrNotVault) && errors.Is(err, fs.ErrNotExist):
		return nil, failf(exitVaultDir, fmt.Sprintf("check the path; a new vault is made with: coffer init %s; one whose .coffer is lost opens with: coffer recover %[1]s", quote(path)),
			"%s is not a coffer vault: it has no .coffer", path)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if w := cfg.Warning(); w != nil {
		a.say("warning: %s", oneLine(w.Error()))
	}
	cfg.Derive = deriver()
	return cfg, nil
}

// unlockFlags say what opens an existing vault: a passphrase, a key file or an age identity.
type unlockFlags struct {
	secretFlags
	keyfile  string
	identity string
}

func (f *unlockFlags) register(fs *pflag.FlagSet) {
	f.secretFlags.register(fs)
	fs.StringVar(&f.keyfile, "keyfile", "", "unlock with the key file `FILE`")
	f.registerIdentity(fs)
}

func (f *unlockFlags) registerIdentity(fs *pflag.FlagSet) {
	fs.StringVar(&f.identity, "identity", "", "unlock with an age identity of `FILE`, one of a plugin included")
}

// kind is that of the slots that f opens.
func (f *unlockFlags) kind() (string, error) {
	n, kind := 0, vault.KindPassphrase
	if f.secretFlags != (secretFlags{}) {
		n++
	}
	if f.keyfile != "" {
		n, kind = n+1, vault.KindKeyFile
	}
	if f.identity != "" {
		n, kind = n+1, vault.KindAge
	}
	if n > 1 {
		return "", failf(exitUsage, "give one of them", "a passphrase, a key file and an identity are different ways to unlock")
	}
	return kind, nil
}

// checkKind says that no slot can open before a secret is asked for.
func checkKind(cfg *vault.Config, kind string) error {
	if slices.ContainsFunc(cfg.Slots, func(s vault.Slot) bool { return s.Kind == kind }) {
		return nil
	}
	name := map[string]string{vault.KindPassphrase: "passphrase", vault.KindKeyFile: "key file", vault.KindAge: "age"}[kind]
	return failf(exitPassphrase, "see how it opens with: coffer key list VAULT; unlock with --passfile, --keyfile or --identity", "the vault has no %s slot", name)
}

// secret returns what f says, and the bytes to wipe when it has been used.
func (a *app) secret(cfg *vault.Config, f unlockFlags, prompt string) (vault.Secret, []byte, error) {
	kind, err := f.kind()
	if err != nil {
		return nil, nil, err
	}
	if err := checkKind(cfg, kind); err != nil {
		return nil, nil, err
	}
	return a.secretOf(kind, f, func() ([]byte, error) { return a.secrets().passphrase(f.secretFlags, prompt, false) })
}

// secretOf is secret of a kind that is known; ask asks for a passphrase.
func (a *app) secretOf(kind string, f unlockFlags, ask func() ([]byte, error)) (vault.Secret, []byte, error) {
	switch kind {
	case vault.KindKeyFile:
		contents, err := readKeyFile(f.keyfile)
		return vault.KeyFile(contents), contents, err
	case vault.KindAge:
		ids, err := a.readIdentities(f.identity)
		return vault.Identities(ids...), nil, err
	}
	pass, err := ask()
	return vault.Passphrase(pass), pass, err
}

// unlock returns the master key, which the caller destroys, and the slot that opened. A master key that an age slot gave is the
// one that this user has seen before.
func (a *app) unlock(path string, cfg *vault.Config, f unlockFlags, prompt string) (*keys.MasterKey, vault.Slot, error) {
	secret, bytes, err := a.secret(cfg, f, prompt)
	defer func() { wipe(bytes) }()
	if err != nil {
		return nil, vault.Slot{}, err
	}
	mk, slot, err := cfg.UnlockWith(secret)
	if err == nil && slot.Kind == vault.KindAge {
		if err = a.checkPin(path, cfg); err != nil {
			mk.Destroy()
		}
	}
	if err != nil {
		return nil, vault.Slot{}, err
	}
	return mk, slot, nil
}

// readKeyFile reads all of a key file. A pipe is fine.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, failf(exitReadSecret, "check the path and its permissions", "cannot read the key file: %w", err)
	}
	defer f.Close()
	b := make([]byte, vault.MaxKeyFile+1) // never grown: no copy of the key is left behind
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		wipe(b)
		return nil, failf(exitReadSecret, "check the path", "cannot read the key file: %w", err)
	}
	return b[:n], nil
}

// slotName is how messages call a slot.
func slotName(s vault.Slot) string {
	if s.Label != "" {
		return fmt.Sprintf("%x (%s)", s.ID, oneLine(s.Label))
	}
	return fmt.Sprintf("%x", s.ID)
}
