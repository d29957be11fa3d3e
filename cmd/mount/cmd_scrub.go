package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/check"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk"
)

func (a *app) scrubCmd() *cobra.Command {
	var asJSON bool
	var progress string
	cmd := &cobra.Command{
		Use:   "scrub VAULT",
		Short: "Look for rot in a vault, without a key",
		Long: fmt.Sprintf(`Check the CRCs and digests of every file of a vault, without a secret: for the machine that stores it, or for cron. Nothing is changed. It finds
bytes that rotted, and blocks and files that were written to the wrong place or cut, and names host file, segment and frame.

It proves nothing against an attacker: whoever changes a file can compute its CRCs and digests anew. Only coffer verify, which needs the key, proves
that a vault is what was written. Names, symlink targets and extended attributes have no digest, and are not checked; nor are the contents of a
vault that was made with --digest none, nor a segment record that was overwritten with zeros beside others that were not.

Of a vault that was not cleanly unmounted, a file may be half-way through a change that the next mount finishes. What looks damaged in it is named
pending, and the exit code is %d; mount and unmount it, and look again. So it is with a vault that another machine has mounted. One that this machine has
mounted for writing is refused, and cannot be mounted for writing meanwhile.

`, exitPending) + findingsHelp,
		Args: exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error { return a.scrub(args[0], asJSON, progress) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	registerProgress(cmd.Flags(), &progress)
	return cmd
}

func (a *app) scrub(path string, asJSON bool, mode string) error {
	if err := checkProgress(mode); err != nil {
		return err
	}
	path, err := absolute(path)
	if err != nil {
		return err
	}
	if err := checkVaultDir(path); err != nil {
		return err
	}
	release, err := shareVault(path)
	if err != nil {
		return err
	}
	defer release()
	root, err := disk.OpenReadOnly(path)
	if err != nil {
		return err
	}
	defer root.Close()
	cfg, err := vault.ReadConfigDir(root)
	if errors.Is(err, vault.ErrVersion) || errors.Is(err, vault.ErrFeature) {
		return fmt.Errorf("%s: %w", path, err)
	}
	out := &findings{w: a.stdout, json: asJSON}
	c := check.ScrubConfig{Root: root, Found: out.add}
	c.Pending = out.scrubCoffer(path)
	// A config that cannot be read is a finding, and no reason to leave the rest.
	if err == nil {
		c.Vault = &cfg.VaultID
		out.config(cfg)
		if cfg.VaultParams().Digest == "none" {
			a.say("the vault has no digests: only headers and records can be checked")
		}
	} else {
		out.early.Damage++
		out.add(check.Finding{Kind: check.Damage, Host: ".coffer/config", What: err.Error(), Hint: "coffer recover makes a new one"})
	}
	c.Progress = new(check.Progress)
	p := a.showChecked(mode, c.Progress)
	sum, err := check.Scrub(a.ctx, c)
	p.stop()
	return out.end(sum, err, "see what is lost with: coffer verify "+quote(path))
}

// scrubCoffer says what the state and the journal of a vault show without a key, and whether something is to be replayed.
func (f *findings) scrubCoffer(path string) (pending bool) {
	clean, known := peekState(path)
	pieces := len(journalPieces(path))
	x := check.Finding{Kind: check.Pending, Host: ".coffer/state", Hint: "mount the vault once, which puts it right"}
	switch {
	case !known:
		x.Kind, x.What, x.Hint = check.Damage, "the state cannot be read", "the next mount makes a new one"
		f.early.Damage++
	case !clean && pieces > 0:
		x.What = fmt.Sprintf("the vault was not cleanly unmounted, and a journal of %d pieces waits to be replayed", pieces)
		f.early.Pending++
	case !clean:
		x.What = "the vault was not cleanly unmounted"
		f.early.Pending++
	case pieces > 0:
		x.Kind, x.Host, x.Hint = check.Leftover, ".coffer/journal.*", "the next mount removes it"
		x.What = fmt.Sprintf("%d pieces of a journal, and the vault was cleanly unmounted", pieces)
		f.early.Leftover++
	default:
		return false
	}
	f.add(x)
	return !clean || !known
}
