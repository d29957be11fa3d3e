package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
)

// loadConfig reads a vault's config after saying plainly what is wrong with its directory.
func (a *app) loadConfig(path string) (*vault.Config, error) {
	if err := checkVaultDir(path); err != nil {
		return nil, err
	}
	cfg, err := vault.ReadConfig(path)
	if err != nil {
		return nil, err
	}
	if w := cfg.Warning(); w != nil {
		a.say("warning: %s", oneLine(w.Error()))
	}
	cfg.Derive = deriver()
	return cfg, nil
}

// unlock asks for the passphrase and returns the master key, which the caller destroys.
func (a *app) unlock(cfg *vault.Config, from secretFlags, prompt string) (*keys.MasterKey, error) {
	pass, err := a.secrets().passphrase(from, prompt, false)
	if err != nil {
		return nil, err
	}
	defer wipe(pass)
	return cfg.Unlock(pass)
}

func (a *app) passwdCmd() *cobra.Command {
	var old, fresh secretFlags
	var mib, time uint32
	cmd := &cobra.Command{
		Use:   "passwd VAULT",
		Short: "Change the passphrase",
		Long: `Change the passphrase of a vault. Files are not encrypted anew: the passphrase only wraps the master key, and the recovery
key stays the same.

Without a terminal the current passphrase is the first line of standard input and the new one the second.`,
		Args: exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.passwd(args[0], old, fresh, mib, time)
		},
	}
	old.register(cmd.Flags())
	registerNew(cmd, &fresh)
	registerKDF(cmd.Flags(), &mib, &time)
	return cmd
}

func registerNew(cmd *cobra.Command, fresh *secretFlags) {
	cmd.Flags().StringVar(&fresh.passfile, "new-passfile", "", "read the new passphrase from the first line of `FILE`")
	cmd.Flags().StringVar(&fresh.extpass, "new-extpass", "", "read the new passphrase from the first line that `COMMAND` prints")
}

func (a *app) passwd(path string, from, to secretFlags, mib, time uint32) error {
	path, err := absolute(path)
	if err != nil {
		return err
	}
	cfg, err := a.loadConfig(path)
	if err != nil {
		return err
	}
	kdf := vault.KDF{} // keep the slot's
	if mib != 0 || time != 0 {
		if kdf, err = kdfParams(cfg.Slots[0].KDF, mib, time); err != nil {
			return err
		}
	}
	if err := checkHost(path, false); err != nil {
		return err
	}
	s := a.secrets()
	old, err := s.passphrase(from, "Current passphrase", false)
	if err != nil {
		return err
	}
	defer wipe(old)
	// Nobody should choose and type a new passphrase only to hear that the old one was wrong.
	mk, err := cfg.Unlock(old)
	if err != nil {
		return err
	}
	mk.Destroy()
	fresh, err := s.passphrase(to, "New passphrase", true)
	if err != nil {
		return err
	}
	defer wipe(fresh)
	if err := vault.ChangePassphrase(path, old, fresh, kdf, deriver()); err != nil {
		return kdfUsage(err)
	}
	a.say("the passphrase was changed")
	return nil
}

// kdfUsage makes bounds of the KDF an error of usage, where flags chose it.
func kdfUsage(err error) error {
	if errors.Is(err, vault.ErrKDF) {
		return failf(exitUsage, "see --kdf-memory and --kdf-time in: coffer init --help", "%w", err)
	}
	return err
}

func (a *app) recoverCmd() *cobra.Command {
	var show bool
	var file string
	var secret secretFlags
	var mib, time uint32
	cmd := &cobra.Command{
		Use:   "recover VAULT",
		Short: "Set a new passphrase with the recovery key, or show that key",
		Long: `Open a vault with its recovery key and set a new passphrase: when the passphrase is lost, or .coffer/config is. A lost config
is rebuilt from any file of the vault.

The key is asked for on the terminal, read from --recovery-file, or is the first line of standard input; the new passphrase is
the next one.

With --show the current passphrase is asked for, and the recovery key is shown on the terminal or written to --recovery-file.`,
		Args: exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := absolute(args[0])
			if err != nil {
				return err
			}
			if show {
				return a.showRecovery(path, file, secret)
			}
			return a.recover(path, file, secret, mib, time)
		},
	}
	cmd.Flags().BoolVar(&show, "show", false, "show the recovery key; needs the passphrase")
	cmd.Flags().StringVar(&file, "recovery-file", "", "read the recovery key from the first line of `FILE`; with --show: write it to this new file")
	secret.register(cmd.Flags())
	registerKDF(cmd.Flags(), &mib, &time)
	return cmd
}

func (a *app) showRecovery(path, file string, secret secretFlags) (err error) {
	cfg, err := a.loadConfig(path)
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
	mk, err := a.unlock(cfg, secret, "Passphrase")
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
	if err := checkVaultDir(path); err != nil {
		return err
	}
	if err := checkHost(path, false); err != nil {
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
