package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/check"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/fs"
)

// findingsHelp is what verify and scrub print.
const findingsHelp = `What is found goes to standard output, one line each, and ends with a summary. Kinds of findings:

  damage     stored bytes or names are not what was written
  pending    scrub only: looks damaged, and may be what the journal of an unclean session puts right: mount the vault once, and look again
  leftover   what an unclean session left: hidden, or put right at its first use
  foreign    a host file that is nobody's, such as a conflict copy of a tool that synchronizes; a mount ignores it
  unchecked  this user may not look at it

With --json each line is a JSON object with the keys kind, path (plain), host (below the vault), bytes {from, to, size} (to is not lost any
more), segment, frame, what and hint, as far as they apply; the last has kind "summary" and the counts. In paths, bytes that cannot be printed
are written as \xNN. Progress goes to standard error.
`

func (a *app) verifyCmd() *cobra.Command {
	var from unlockFlags
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify VAULT",
		Short: "Check every byte of a vault",
		Long: `Check a vault with its key: every name, symlink and extended attribute, and every byte of every file, at the speed of disk or cipher. Nothing is
changed. Exit code 26 says that there is damage. A journal that an unclean session left is seen as the next mount will replay it.

A file that is gone together with its name leaves nothing to find, and so does what was put back as it once was.

A vault that is mounted is checked by the daemon that has it, which asks for no secret, while programs go on. What seems wrong is looked at again
while all changes wait, for as long as that takes, most often a moment. What is made or moved to another directory meanwhile may be passed over. It is
for the user who mounted it; --repair wants it unmounted.

With --repair the vault is opened for writing, which finishes what an unclean session left, and what is damaged is saved as far as it can be:

  rebuilt   a new file has taken over the name: all that still opens is at its place, and what is lost reads as zeros
  moved     what could not stay under its name lies in the directory lost+found of the vault; what a second directory of one id hid, in the first
  copied    what could be read of it lies in lost+found too; the original is damaged still
  finished  header or length of a file were put right after an unclean session
  removed   an unfinished file of an earlier repair; extended attributes that do not open; a second directory of one id
  kept      nothing could be done: symlinks whose target is lost, directories that nobody knows, files of which nothing opens

A journal that is damaged is replayed as far as it is whole, before all else, and its pieces are kept in .coffer/lost of the vault, to be removed by hand. What it
lost beyond that is lost: the files that are known to lack something are named.

No file that can be read is changed, and new ones are whole on the disk before they take a name over, so that a repair can be interrupted and run again.
Each of these is one line, or with --json one object with the keys kind, path, host, to, lost (a list of ranges) and what. With --dry-run nothing is
changed; what a repair would find below what it moved is not known then. After a repair the exit code is 0 where nothing is damaged any more,
whatever was lost. Make a copy of the vault first if you can, and make sure that the disk is sound.

Where a header or a block that vouches for others is lost, frames are believed that open at their place in their file, and may be older than what was
written there last. Do not repair what you think an attacker has changed: restore it.

` + findingsHelp,
		Args: exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error { return a.verify(args[0], from, o) },
	}
	fl := cmd.Flags()
	from.register(fl)
	fl.BoolVar(&o.json, "json", false, "print JSON, one object a line")
	registerProgress(fl, &o.progress)
	fl.BoolVar(&o.repair, "repair", false, "save what can be saved")
	fl.BoolVar(&o.dryRun, "dry-run", false, "with --repair: change nothing, and say what would be done")
	fl.BoolVar(&o.recover, "recover", false, "with --repair: also repair a copy of a vault that was not cleanly unmounted")
	fl.BoolVar(&o.forceUnlock, "force-unlock", false, "ignore the lock that a host which is gone left in the vault")
	return cmd
}

type verifyOptions struct {
	json        bool
	progress    string
	repair      bool
	dryRun      bool
	recover     bool
	forceUnlock bool
}

// writes tells whether the vault is to be changed.
func (o verifyOptions) writes() bool { return o.repair && !o.dryRun }

func (a *app) verify(path string, from unlockFlags, o verifyOptions) error {
	if err := checkProgress(o.progress); err != nil {
		return err
	}
	path, err := absolute(path)
	if err != nil {
		return err
	}
	if (o.dryRun || o.recover) && !o.repair {
		return failf(exitUsage, "coffer verify alone changes nothing", "--dry-run and --recover belong to --repair")
	}
	out := &findings{w: a.stdout, json: o.json, dryRun: o.dryRun}
	if err := checkVaultDir(path); err != nil {
		return err
	}
	if err := checkUnused(path, !o.writes()); err != nil {
		use, _ := asInUse(err)
		switch {
		case o.repair:
			return fmt.Errorf("a mounted vault is not repaired: %w", err)
		case use.Holder.PID != 0:
			return a.verifyMounted(path, use.Holder, o.progress, out)
		}
		return err
	}
	cfg, err := a.loadConfig(path)
	if err != nil {
		return err
	}
	if o.writes() {
		if err := checkWritable(path, ""); err != nil {
			return err
		}
	}
	mk, _, err := a.unlock(path, cfg, from, "Passphrase")
	if err != nil {
		return err
	}
	// A copy of a vault that was in use is looked at like any other, where nothing is written.
	v, err := vault.Open(path, cfg, mk, vault.OpenOptions{
		ReadOnly: !o.writes(), Recover: o.recover || !o.writes(), ForceUnlock: o.forceUnlock, Salvage: true, Mountpoint: "coffer verify --repair", Events: out.event,
	})
	mk.Destroy()
	if err != nil {
		return err
	}
	s, err := fs.NewStack(v, fs.StackConfig{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	out.vault(v)
	out.aside(path)
	err = a.check(path, s, o, out)
	return errors.Join(err, s.Close())
}

// check runs what o says on an open vault.
func (a *app) check(path string, s *fs.Stack, o verifyOptions, out *findings) error {
	counts := new(check.Progress)
	defer a.showChecked(o.progress, counts).stop()
	c := check.RepairConfig{Done: out.action, Config: checkConfig(s)}
	c.Found, c.Progress = out.add, counts
	if !o.repair {
		sum, err := check.Verify(a.ctx, c.Config)
		return out.end(sum, err, "see what can be saved: coffer verify --repair --dry-run "+quote(path))
	}
	if o.writes() {
		c.Tree = s.Tree
	}
	sum, kept, err := check.Repair(a.ctx, c)
	return out.repaired(sum, kept, err)
}

// showChecked shows how far a check is. Of how much nobody knows before.
func (a *app) showChecked(mode string, counts *check.Progress) *progress {
	return a.showProgress(mode, 0, 0, func() (int64, int64, string) { return counts.Objects.Load(), counts.Bytes.Load(), "" })
}

// journalPieces are the pieces of a journal that lie in a vault, whoever left them.
func journalPieces(path string) []string {
	all, err := filepath.Glob(filepath.Join(escapeGlob(path), ".coffer", "journal.*"))
	if err != nil {
		return nil // the pattern is ours
	}
	return all
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
