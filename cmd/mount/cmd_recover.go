package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
)

func (a *app) recoverCmd() *cobra.Command {
	var show bool
	var file string
	var secret unlockFlags
	var mib, time uint32
	cmd := &cobra.Command{
		Use:   "recover VAULT",
		Short: "Set a new passphrase with the recovery key, or show that key",
		Long: `Open a vault with its recovery key and set a new passphrase: when the passphrase is lost, or .coffer/config is. A lost config
is rebuilt from any file of the vault.

The key is asked for on the terminal, read from --recovery-file, or is the first line of standard input; the new passphrase is
the next one.

Key files and age recipients stay; all passphrases are replaced by the new one.

With --show the vault is unlocked with the current passphrase, --keyfile or --identity, and the recovery key is shown on the
terminal or written to --recovery-file.`,
		Args: exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error {
			if show {
				return a.showRecovery(args[0], file, secret)
			}
			if secret.keyfile != "" || secret.identity != "" {
				return failf(exitUsage, "set a passphrase with: coffer passwd or coffer key add", "with the recovery key there is nothing else to unlock with")
			}
			return a.recover(args[0], file, secret.secretFlags, mib, time)
		},
	}
	cmd.Flags().BoolVar(&show, "show", false, "show the recovery key; needs the passphrase, a key file or an identity")
	cmd.Flags().StringVar(&file, "recovery-file", "", "read the recovery key from the first line of `FILE`; with --show: write it to this new file")
	secret.register(cmd.Flags())
	registerKDF(cmd.Flags(), &mib, &time)
	return cmd
}

func (a *app) showRecovery(path, file string, secret unlockFlags) (err error) {
	path, cfg, err := a.loadVault(path)
	if err != nil {
		return err
	}
	sink, err := openRecoverySink(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sink.close()) }()
	if sink.file == nil && !hasTerminal() {
		return failf(exitReadSecret, "write it to a file: --recovery-file FILE", "there is no terminal to show the recovery key on")
	}
	mk, _, err := a.unlock(path, cfg, secret, "Current passphrase")
	if err != nil {
		return err
	}
	defer mk.Destroy()
	return sink.deliver(a, path, keys.EncodeRecovery(mk.Bytes()))
}

func (a *app) recover(path, file string, secret secretFlags, mib, time uint32) error {
	kdf, err := kdfParams(vault.DefaultKDF(), mib, time)
	if err != nil {
		return err
	}
	path, err = writableVaultDir(path)
	if err != nil {
		return err
	}
	s := a.secrets()
	key, err := s.read(secretFlags{passfile: file}, "Recovery key: ")
	if err != nil {
		return err
	}
	defer wipe(key)
	raw, err := keys.DecodeRecovery(string(key))
	if err != nil {
		return err
	}
	clear(raw)
	pass, err := s.passphrase(secret, "New passphrase", true)
	if err != nil {
		return err
	}
	defer wipe(pass)
	if err := vault.Recover(path, string(key), pass, kdf, deriver()); err != nil {
		return kdfUsage(err)
	}
	a.say("the vault has a new passphrase; the recovery key stays the same")
	return nil
}
