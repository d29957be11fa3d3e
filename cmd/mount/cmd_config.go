package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/vault"
)

func (a *app) configCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Keep and restore the config of a vault",
		Long: `The config of a vault holds its key slots and parameters. Without it a vault opens with the recovery key only. It is in .coffer/config and once more
in .coffer/config.bak; these commands are for a copy that is kept elsewhere.`,
		Args: cobra.ArbitraryArgs,
		RunE: needsCommand("coffer config backup or restore"),
	}
	var from unlockFlags
	restore := &cobra.Command{
		Use:   "restore VAULT FILE",
		Short: "Put a backup of the config back",
		Long: `Put a backup of the config back into a vault. It must open with the passphrase, key file or identity that is given, as it was when the backup was made, and be
of this vault; it takes the place of config and config.bak at once. A config that is there and is not authentic is kept as config.damaged.

All key slots become those of the backup: passphrases and keys that were changed or removed since open the vault again, and those that were added
since do not. Both are listed.`,
		Args: exactArgs("VAULT", "FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return a.restoreConfig(args[0], args[1], from) },
	}
	from.register(restore.Flags())
	cmd.AddCommand(&cobra.Command{
		Use:   "backup VAULT FILE",
		Short: "Write a backup of the config to a new file",
		Long: `Write the config of a vault to a new file. No secret is needed, and none is in it that the passphrase does not protect; but whoever has the file can guess at
that passphrase, and can open the vault with it even when it has been changed or removed since. Make a new backup after each change of key slots, and
destroy the old one.`,
		Args: exactArgs("VAULT", "FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return a.backupConfig(args[0], args[1]) },
	}, restore)
	return cmd
}

func (a *app) backupConfig(path, file string) error {
	_, cfg, err := a.loadVault(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return failf(exitUsage, "choose another name, or remove it first", "%s exists already", file)
	}
	if err != nil {
		return backupFailed(err)
	}
	_, err = f.Write(cfg.File())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return backupFailed(errors.Join(err, os.Remove(file)))
	}
	a.say("the config is in %s; keep it as safe as the vault", file)
	return nil
}

func backupFailed(err error) error {
	return elsewhere("choose a directory that is there and can be written to", fmt.Errorf("cannot write the backup: %w", err))
}

// maxConfig is more than a config can have, in bytes.
const maxConfig = 2 << 20

func (a *app) restoreConfig(path, file string, from unlockFlags) error {
	path, err := writableVaultDir(path)
	if err != nil {
		return err
	}
	cfg, err := readBackup(file)
	if err != nil {
		return err
	}
	mk, _, err := a.unlock(path, cfg, from, "Passphrase of the backup")
	if err != nil {
		return err
	}
	defer mk.Destroy()
	done, err := vault.RestoreConfig(path, cfg, mk)
	if err != nil {
		return err
	}
	a.say("the config was restored")
	if done.Unknown {
		a.say("the config that was there could not be used; the vault opens with the slots of the backup:")
	}
	for _, s := range done.Back {
		if done.Unknown {
			a.say("  %s slot %s", s.Kind, slotName(s))
		} else {
			a.say("warning: %s slot %s as it was at the time of the backup opens the vault again; remove it if it is not to: coffer key remove", s.Kind, slotName(s))
		}
	}
	for _, s := range done.Gone {
		a.say("%s slot %s as it was before does not open the vault any more", s.Kind, slotName(s))
	}
	return nil
}

// readBackup reads a config file that was kept elsewhere.
func readBackup(file string) (*vault.Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, failf(exitConfig, "check the path and its permissions", "cannot read the backup: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return nil, failf(exitConfig, "check the path", "cannot read the backup: %w", err)
	}
	cfg, err := vault.ParseConfig(data)
	if err != nil {
		if errors.Is(err, vault.ErrConfig) {
			return nil, failf(exitConfig, "give a file that coffer config backup made", "%s is no backup of a config: %w", file, err)
		}
		return nil, err
	}
	cfg.Derive = deriver()
	return cfg, nil
}
