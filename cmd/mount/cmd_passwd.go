package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/vault"
)

func (a *app) passwdCmd() *cobra.Command {
	var old unlockFlags
	var fresh secretFlags
	var slot string
	var mib, time uint32
	cmd := &cobra.Command{
		Use:   "passwd VAULT",
		Short: "Change the passphrase",
		Long: `Change the passphrase of a vault. Files are not encrypted anew: the passphrase only wraps the master key, and the recovery
key stays the same.

Where there are several passphrases, the one that is given changes. With --keyfile or --identity the only one changes, or the one
that --slot names.

Without a terminal the current passphrase is the first line of standard input and the new one the second.`,
		Args: exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.passwd(args[0], old, fresh, slot, mib, time)
		},
	}
	old.register(cmd.Flags())
	registerNew(cmd, &fresh)
	cmd.Flags().StringVar(&slot, "slot", "", "change the passphrase of `SLOT`, an id or label of coffer key list")
	registerKDF(cmd.Flags(), &mib, &time)
	return cmd
}

func registerNew(cmd *cobra.Command, fresh *secretFlags) {
	cmd.Flags().StringVar(&fresh.passfile, "new-passfile", "", "read the new passphrase from the first line of `FILE`")
	cmd.Flags().StringVar(&fresh.extpass, "new-extpass", "", "read the new passphrase from the first line that `COMMAND` prints")
}

func (a *app) passwd(path string, from unlockFlags, to secretFlags, name string, mib, time uint32) error {
	path, cfg, err := a.loadForChange(path)
	if err != nil {
		return err
	}
	// The slot's own parameters stay where none are given.
	if _, err := kdfParams(vault.KDF{}, mib, time); err != nil {
		return err
	}
	// Nobody should choose and type a new passphrase only to hear that the old one was wrong.
	mk, opened, err := a.unlock(path, cfg, from, "Current passphrase")
	if err != nil {
		return err
	}
	defer mk.Destroy()
	slot, err := passphraseToChange(cfg, opened, name)
	if err != nil {
		return err
	}
	kdf, err := kdfParams(slot.KDF, mib, time)
	if err != nil {
		return err
	}
	fresh, err := a.secrets().passphrase(to, "New passphrase", true)
	if err != nil {
		return err
	}
	defer wipe(fresh)
	if slot, err = cfg.NewPassphrase(mk, slot, fresh, kdf); err != nil {
		return kdfUsage(err)
	}
	if err := vault.ReplaceSlot(path, mk, slot); err != nil {
		return err
	}
	a.say("the passphrase was changed")
	return nil
}

// passphraseToChange is the slot that name says, else the one that opened, else the only one of its kind.
func passphraseToChange(cfg *vault.Config, opened vault.Slot, name string) (vault.Slot, error) {
	var id [8]byte
	if name != "" {
		var err error
		if id, err = findSlot(cfg, name); err != nil {
			return vault.Slot{}, err
		}
	} else if opened.Kind == vault.KindPassphrase {
		return opened, nil
	}
	var found []vault.Slot
	for _, s := range cfg.Slots {
		if s.Kind == vault.KindPassphrase && (name == "" || s.ID == id) {
			found = append(found, s)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case name != "":
		return vault.Slot{}, failf(exitUsage, "see the slots with: coffer key list VAULT", "slot %q has no passphrase", oneLine(name))
	case len(found) == 0:
		return vault.Slot{}, failf(exitUsage, "add one with: coffer key add VAULT", "the vault has no passphrase to change")
	}
	return vault.Slot{}, failf(exitUsage, "say which one with --slot; see: coffer key list VAULT", "the vault has %d passphrases", len(found))
}

// kdfUsage makes bounds of the KDF an error of usage, where flags chose it.
func kdfUsage(err error) error {
	if errors.Is(err, vault.ErrKDF) {
		return failf(exitUsage, "see --kdf-memory and --kdf-time in: coffer init --help", "%w", err)
	}
	return err
}
