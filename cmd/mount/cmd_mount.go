package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/journal"
)

// mountFlags are what `coffer mount` was asked for.
type mountFlags struct {
	create     bool
	foreground bool
	quiet      bool
	recover    bool
	force      bool
	idle       time.Duration
	journal    sizeFlag
	log        string
	words      []string
	secret     unlockFlags
	new        createFlags
	frameSet   bool
}

func (a *app) mountCmd() *cobra.Command {
	var f mountFlags
	cmd := &cobra.Command{
		Use:   "mount VAULT MOUNTPOINT",
		Short: "Mount a vault",
		Long: `Mount VAULT on MOUNTPOINT, an empty directory. With --create the directories and the vault are made where they are missing, the vault as coffer init
makes it; the flags of coffer init are for that.

The command returns when the mount can be used; a daemon serves it until ` + "`coffer umount`" + `, SIGTERM or SIGINT, or until it was idle for as
long as --idle says. With --foreground readiness is told to systemd (sd_notify(3), Type=notify).

Mount options (-o, separated by commas): ro rw allow_other default_permissions suid nosuid dev nodev exec noexec noatime
fsname=NAME nowriteback noxattr acl. Mounts are rw,nosuid,nodev unless said otherwise, and default_permissions unless only root may enter; suid, dev are for root.`,
		Args: exactArgs("VAULT", "MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.frameSet = cmd.Flags().Changed("frame-size")
			return a.mount(args[0], args[1], f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.create, "create", false, "make the vault and both directories where they are missing")
	fl.BoolVar(&f.foreground, "foreground", false, "serve in this process, logging to standard error")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but errors")
	fl.BoolVar(&f.recover, "recover", false, "open a copy of a vault that was not cleanly unmounted")
	fl.BoolVar(&f.force, "force-unlock", false, "ignore the lock of another host; only when that host is surely gone")
	fl.Var(&f.journal, "journal-size", "most bytes of journal in the vault while it is mounted, 32M to 1024M; auto is 128M")
	fl.DurationVar(&f.idle, "idle", 0, "unmount after no request and no open file for `DURATION`, such as 30m; a mount in use stays")
	fl.StringVar(&f.log, "log", "", "log to `FILE` (default: coffer.log in $XDG_STATE_HOME/coffer or ~/.local/state/coffer)")
	fl.StringArrayVarP(&f.words, "options", "o", nil, "mount `OPTIONS`")
	f.secret.register(fl)
	f.new.register(fl)
	return cmd
}

// maxJournal is the largest journal that can be asked for: what is in it is replayed by the next mount after a power cut.
const maxJournal = 1 << 30

// mount checks everything that can be checked before the passphrase is asked for, then asks, unlocks and serves.
func (a *app) mount(vaultPath, mountpoint string, f mountFlags) (err error) {
	words, err := parseWords(f.words)
	if err != nil {
		return err
	}
	if least, most := sizeFlag(journal.MinSize), sizeFlag(maxJournal); f.journal != 0 && (f.journal < least || f.journal > most) {
		return failf(exitUsage, fmt.Sprintf("give a size from %s to %s, or auto", &least, &most), "--journal-size %s is out of bounds", &f.journal)
	}
	if f.idle < 0 {
		return failf(exitUsage, "give a duration such as 30m, or 0 for never", "--idle %s is negative", f.idle)
	}
	vaultPath, err = absolute(vaultPath)
	if err != nil {
		return err
	}
	mountpoint, err = a.resolveForMount(mountpoint, f.create)
	if err != nil {
		return err
	}
	missing := f.create && !vaultExists(vaultPath)
	if !missing {
		if err := checkVaultDir(vaultPath); err != nil {
			return err
		}
	} else if words.ReadOnly {
		return failf(exitUsage, "make the vault first, without ro", "a vault that does not exist cannot be mounted for reading only")
	}
	made, err := a.prepareMountpoint(vaultPath, mountpoint, f.create)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			removeDirs(made)
		}
	}()
	if err := checkFUSE(words); err != nil {
		return err
	}

	if words.FsName == "" {
		words.FsName = vaultPath
	}
	job := mountJob{Vault: vaultPath, Mountpoint: mountpoint, Words: words, Recover: f.recover, ForceUnlock: f.force, Idle: f.idle, JournalSize: int64(f.journal)}
	mk, err := a.openKey(job, missing, f)
	if err != nil {
		return err
	}
	defer mk.Destroy()
	if f.foreground {
		return a.serveHere(job, mk, f)
	}
	log, err := a.daemonLog(f.log)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := startDaemon(a.ctx, job, mk, log); err != nil {
		return err
	}
	a.sayMounted(job, f.quiet)
	return nil
}

// openKey returns the master key of an existing vault, or of the one it makes.
func (a *app) openKey(job mountJob, missing bool, f mountFlags) (*keys.MasterKey, error) {
	if missing {
		if f.secret.keyfile != "" || f.secret.identity != "" {
			return nil, failf(exitUsage, "make it with a passphrase; then: coffer key add VAULT", "a new vault has no key file and no recipient yet")
		}
		pass, err := a.createVault(job.Vault, f.new, f.secret.secretFlags, f.frameSet)
		if err != nil {
			return nil, err
		}
		defer wipe(pass)
		cfg, err := a.loadConfig(job.Vault)
		if err != nil {
			return nil, err
		}
		return cfg.Unlock(pass)
	}
	cfg, err := a.loadConfig(job.Vault)
	if err != nil {
		return nil, err
	}
	if !job.Words.ReadOnly {
		if err := checkWritable(job.Vault, orReadOnly); err != nil {
			return nil, err
		}
	}
	if err := checkUnused(job.Vault, job.Words.ReadOnly); err != nil {
		return nil, err
	}
	mk, _, err := a.unlock(job.Vault, cfg, f.secret, "Passphrase")
	return mk, err
}

// vaultExists tells --create whether there is a vault to mount or one to make: whatever has a .coffer is left alone.
func vaultExists(path string) bool {
	_, err := os.Lstat(filepath.Join(path, ".coffer"))
	return err == nil
}

// resolveForMount resolves the mount point; with create the directories above it may be missing.
func (a *app) resolveForMount(path string, create bool) (string, error) {
	resolved, err := resolveMountpoint(path)
	switch {
	case err == nil:
		return resolved, nil
	case errors.Is(err, fs.ErrNotExist) && create:
		return resolved, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", failf(exitMountpoint, fmt.Sprintf("make it with: mkdir -p %s (or use --create)", quote(path)), "mount point %s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return "", failf(exitPermission, "choose a directory of your own", "mount point: %w", err)
	}
	return "", failf(exitMountpoint, "check the path", "mount point: %w", err)
}

// prepareMountpoint clears a dead mount, makes the directory with create, and checks it. It returns the directories it made.
func (a *app) prepareMountpoint(vaultPath, mountpoint string, create bool) (made []string, err error) {
	note, err := clearDeadMount(mountpoint)
	if note != "" {
		a.say("%s", note)
	}
	if err != nil {
		return nil, err
	}
	if err := checkApart(vaultPath, mountpoint); err != nil {
		return nil, err
	}
	if create {
		if _, err := os.Lstat(mountpoint); errors.Is(err, fs.ErrNotExist) {
			if made, err = makeDirs(mountpoint); err != nil {
				return nil, elsewhere("choose another mount point", err)
			}
		}
	}
	if err := checkMountpoint(vaultPath, mountpoint); err != nil {
		removeDirs(made)
		return nil, err
	}
	return made, nil
}

// serveHere is mount --foreground.
func (a *app) serveHere(job mountJob, mk *keys.MasterKey, f mountFlags) error {
	out := a.stderr
	if f.log != "" {
		log, err := openLog(f.log)
		if err != nil {
			return err
		}
		defer log.Close()
		out = log
	}
	// Classified here: takeSignals ends the app's context, and run would call it interrupted.
	return classify(serve(job, mk, newLogger(out, job.Vault), a.takeSignals(), func() {
		a.sayMounted(job, f.quiet)
		if err := notifySystemd("READY=1\nSTATUS=Mounted on " + oneLine(job.Mountpoint)); err != nil {
			a.say("warning: %s", oneLine(err.Error()))
		}
	}))
}

// daemonLog opens the log. A default place that cannot be written is no reason not to mount; one that was asked for is.
func (a *app) daemonLog(path string) (*os.File, error) {
	log, err := openLog(path)
	if err == nil || path != "" {
		return log, err
	}
	a.say("warning: there will be no log: %s (choose a file with --log FILE)", oneLine(err.Error()))
	return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
}

func (a *app) sayMounted(job mountJob, quiet bool) {
	if quiet {
		return
	}
	a.say("mounted %s on %s; unmount with: coffer umount %s", oneLine(job.Vault), oneLine(job.Mountpoint), quote(job.Mountpoint))
}
