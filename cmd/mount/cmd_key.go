package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
)

func (a *app) keyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Add, list and remove what opens a vault",
		Long: `A vault opens with any of its key slots: passphrases, key files, and age recipients, which bring hardware keys by age's plugins. The
vault may be mounted while they are changed.`,
		Args: cobra.ArbitraryArgs,
		RunE: needsCommand("coffer key add, list or remove"),
	}
	cmd.AddCommand(a.keyAddCmd(), a.keyListCmd(), a.keyRemoveCmd())
	return cmd
}

// newKey is the slot that `key add` makes: for a key file or a recipient where one is given, else for a passphrase.
type newKey struct {
	label     string
	keyfile   string
	recipient string
	pass      secretFlags
	kdfMiB    uint32
	kdfTime   uint32
}

func (a *app) keyAddCmd() *cobra.Command {
	var from unlockFlags
	var n newKey
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "add VAULT",
		Short: "Add a passphrase, a key file or an age recipient",
		Long: `Add a key slot. The new one is a passphrase, or what --keyfile or --recipient names. A key file that does not exist yet is made, with
64 random bytes; one that exists must be random, since guessing at it costs nothing.

A recipient is age's: age1… (age-keygen), age1pq1… (age-keygen -pq), or a plugin's, such as age-plugin-yubikey, age-plugin-tpm or
age-plugin-fido2-hmac.

The vault is unlocked with the current passphrase, with --unlock-keyfile or with --identity. Without a terminal the current
passphrase is the first line of standard input and the new one the next.`,
		Args: exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error { return a.keyAdd(args[0], from, n, asJSON) },
	}
	fl := cmd.Flags()
	from.secretFlags.register(fl)
	fl.StringVar(&from.keyfile, "unlock-keyfile", "", "unlock with the key file `FILE`")
	from.registerIdentity(fl)
	fl.StringVar(&n.keyfile, "keyfile", "", "add the key file `FILE`; it is made where it does not exist")
	fl.StringVar(&n.recipient, "recipient", "", "add the age recipient `RECIPIENT`")
	fl.StringVar(&n.label, "label", "", "`NAME` of the new slot; everybody can read it")
	registerNew(cmd, &n.pass)
	registerKDF(fl, &n.kdfMiB, &n.kdfTime)
	fl.BoolVar(&asJSON, "json", false, "print the new slot as JSON")
	return cmd
}

// check finds what is wrong with the flags before anything is asked or made.
func (n *newKey) check() (vault.KDF, error) {
	kdf, err := kdfParams(vault.DefaultKDF(), n.kdfMiB, n.kdfTime)
	if err != nil {
		return kdf, err
	}
	if n.keyfile != "" && n.recipient != "" || (n.keyfile != "" || n.recipient != "") && n.pass != (secretFlags{}) {
		return kdf, failf(exitUsage, "add them one by one", "a slot is for a passphrase, a key file or a recipient")
	}
	return kdf, vault.CheckLabel(n.label)
}

func (a *app) keyAdd(path string, from unlockFlags, n newKey, asJSON bool) error {
	path, cfg, err := a.loadForChange(path)
	if err != nil {
		return err
	}
	kdf, err := n.check()
	if err != nil {
		return err
	}
	mk, _, err := a.unlock(path, cfg, from, "Current passphrase")
	if err != nil {
		return err
	}
	defer mk.Destroy()
	var slot vault.Slot
	undo := func() {}
	switch {
	case n.keyfile != "":
		slot, undo, err = keyFileSlot(path, cfg, mk, n.keyfile)
	case n.recipient != "":
		slot, err = a.recipientSlot(path, cfg, mk, n.recipient)
	default:
		slot, err = a.passphraseSlot(cfg, mk, n.pass, kdf)
	}
	if err != nil {
		return err
	}
	slot.Label = n.label
	if err := vault.AddSlot(path, mk, slot); err != nil {
		undo()
		return err
	}
	a.say("added %s slot %s", slot.Kind, slotName(slot))
	if asJSON {
		return a.printJSON(describeSlot(slot))
	}
	return nil
}

// loadForChange is the start of all commands that change key slots.
func (a *app) loadForChange(path string) (string, *vault.Config, error) {
	path, cfg, err := a.loadVault(path)
	if err != nil {
		return "", nil, err
	}
	return path, cfg, checkWritable(path, "")
}

func (a *app) passphraseSlot(cfg *vault.Config, mk *keys.MasterKey, from secretFlags, kdf vault.KDF) (vault.Slot, error) {
	pass, err := a.secrets().passphrase(from, "New passphrase", true)
	if err != nil {
		return vault.Slot{}, err
	}
	defer wipe(pass)
	slot, err := cfg.PassphraseSlot(mk, pass, kdf)
	return slot, kdfUsage(err)
}

// recipientSlot also remembers the vault's key: the identity may be used next.
func (a *app) recipientSlot(path string, cfg *vault.Config, mk *keys.MasterKey, recipient string) (vault.Slot, error) {
	recipient = strings.TrimSpace(recipient)
	to, err := a.parseRecipient(recipient)
	if err != nil {
		return vault.Slot{}, err
	}
	slot, err := cfg.AgeSlot(mk, recipient, to)
	if err != nil {
		return slot, err
	}
	return slot, a.checkPin(path, cfg)
}

// keyFileSlot makes the key file where there is none; undo removes it then.
func keyFileSlot(path string, cfg *vault.Config, mk *keys.MasterKey, file string) (slot vault.Slot, undo func(), err error) {
	undo = func() {}
	file, err = absolute(file)
	if err != nil {
		return slot, undo, err
	}
	if isBelow(canonical(file), canonical(path)) {
		return slot, undo, failf(exitUsage, "keep it apart from the vault", "a key file inside of the vault would open it to everybody who has the vault")
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := makeKeyFile(file); err != nil {
			return slot, undo, err
		}
		undo = func() { _ = os.Remove(file) }
	}
	contents, err := readKeyFile(file)
	if err == nil {
		slot, err = cfg.KeyFileSlot(mk, contents)
	}
	wipe(contents)
	if err != nil {
		undo()
	}
	return slot, undo, err
}

// madeKeyFile is the length of a new key file in bytes.
const madeKeyFile = 64

// makeKeyFile makes a key file that only its owner can read. It is durable before the slot is, as is its name.
func makeKeyFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failf(exitOther, "name a file in a directory of your own", "cannot make the key file: %w", err)
	}
	b := make([]byte, madeKeyFile)
	defer wipe(b)
	rand.Read(b)
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		_ = os.Remove(path)
		return failf(exitOther, "name another file", "cannot make the key file: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (a *app) keyRemoveCmd() *cobra.Command {
	var from unlockFlags
	cmd := &cobra.Command{
		Use:     "remove VAULT SLOT",
		Aliases: []string{"rm"},
		Short:   "Remove a key slot",
		Long: `Remove the key slot SLOT, an id or a label of ` + "`coffer key list`" + `. The vault is unlocked with any of its slots. The last slot stays: the
recovery key is none.

What was removed opens this vault no more, but does not protect it from somebody who has kept an old copy of its config.`,
		Args: exactArgs("VAULT", "SLOT"),
		RunE: func(_ *cobra.Command, args []string) error { return a.keyRemove(args[0], args[1], from) },
	}
	from.register(cmd.Flags())
	return cmd
}

func (a *app) keyRemove(path, name string, from unlockFlags) error {
	path, cfg, err := a.loadForChange(path)
	if err != nil {
		return err
	}
	id, err := findSlot(cfg, name)
	if err != nil {
		return err
	}
	mk, _, err := a.unlock(path, cfg, from, "Current passphrase")
	if err != nil {
		return err
	}
	defer mk.Destroy()
	if err := vault.RemoveSlot(path, mk, id); err != nil {
		return err
	}
	a.say("removed slot %x", id)
	return nil
}

// findSlot takes an id, or a label that one slot has. An id that the config has not may be what an interrupted removal left in the
// backup: RemoveSlot knows.
func findSlot(cfg *vault.Config, name string) (id [8]byte, err error) {
	if b, err := hex.DecodeString(name); err == nil && len(b) == len(id) {
		return [8]byte(b), nil
	}
	n := 0
	for _, s := range cfg.Slots {
		if s.Label == name && name != "" {
			id, n = s.ID, n+1
		}
	}
	const hint = "see the ids with: coffer key list VAULT"
	switch n {
	case 0:
		return id, failf(exitUsage, hint, "no key slot %q", oneLine(name))
	case 1:
		return id, nil
	}
	return id, failf(exitUsage, hint, "%d key slots have the label %q", n, oneLine(name))
}
