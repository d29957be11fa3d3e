package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cmd/mount/bulk"
	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/plain"
	"github.com/cofferfs/coffer/internal/disk"
)

// importFlags are the choices of one import.
type importFlags struct {
	unlock   unlockFlags
	checksum bool
	delete   bool
	dryRun   bool
	json     bool
	progress string
	segment  sizeFlag
	frame    sizeFlag
}

func (a *app) importCmd() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import VAULT SRC... [DEST]",
		Short: "Copy files and trees into a vault, mounted or not",
		Long: `Copy each SRC into the vault: into the directory DEST, which is counted from the root of the vault, or under that name where there is no such thing yet and one
SRC. Without DEST, one SRC goes to the root. A SRC that ends in /. stands for what is in it. Modes, times, symlinks, hard links, user attributes and
holes are kept; owners too for root. Sockets and devices are left out.

A file is in the vault under its name only when all of it is there and durable; one that is there already is replaced, unless it has the same size and mtime
(with --checksum: the same bytes): then it is finished. So an import that was interrupted goes on when it is called again; a file of more than 64 MiB goes on at most 64 MiB or 2
seconds before where it was, if it has not changed since. Until then its beginning is in .coffer/import of the vault, which you may remove while the vault is not in use.

With --delete-source what was copied is removed, when all is durable: a file when its copy was read back and compared, symlinks and FIFOs likewise, and directories
once they are empty. What differs, was left out, or came meanwhile stays; so does the directory of a SRC that ends in /.

Files of more than 64 MiB get segments of 1 MiB and frames of 32 KiB, or the vault's if those are larger, which takes less space and time. Those that will be changed at
random places, as databases and disk images are, are better off with --segment-size 64K --frame-size 4K.

A mounted vault is written through its mount, as its other users do, and its files have the vault's sizes; each file shows there when it is whole and durable. The
beginning of a large one is .coffer-export-*.part in its directory until then.`,
		Args: rangeArgs(2, 0, "VAULT", "SRC...", "[DEST]"),
		RunE: func(_ *cobra.Command, args []string) error {
			dest := "/"
			sources := args[1:]
			if len(sources) > 1 {
				dest, sources = sources[len(sources)-1], sources[:len(sources)-1]
			}
			return a.importInto(args[0], sources, dest, f)
		},
	}
	f.unlock.register(cmd.Flags())
	cmd.Flags().BoolVar(&f.checksum, "checksum", false, "compare bytes, not size and mtime, to find what is finished")
	cmd.Flags().BoolVar(&f.delete, "delete-source", false, "remove each source when its copy was read back, compared, and is durable; directories when they are empty")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be copied, by size and mtime, and change nothing")
	cmd.Flags().BoolVar(&f.json, "json", false, "print what was done as JSON on standard output")
	cmd.Flags().Var(&f.segment, "segment-size", "bytes that are cached and digested together; auto: the vault's, and 1M for files of more than 64 MiB")
	cmd.Flags().Var(&f.frame, "frame-size", "bytes that are encrypted together; auto: what suits the segment size")
	registerProgress(cmd.Flags(), &f.progress)
	return cmd
}

func (a *app) importInto(vaultPath string, paths []string, dest string, f importFlags) (err error) {
	if err := checkProgress(f.progress); err != nil {
		return err
	}
	if vaultPath, err = absolute(vaultPath); err != nil {
		return err
	}
	if err := checkVaultDir(vaultPath); err != nil {
		return err
	}
	geo, err := f.geometry()
	if err != nil {
		return err
	}
	mountpoint, err := writersMount(vaultPath)
	if err != nil {
		return err
	}
	if mountpoint != "" && geo != nil {
		return failf(exitUsage, "leave --segment-size and --frame-size out, or unmount it first: coffer umount "+quote(mountpoint),
			"the vault is mounted at %s: what is written through the mount has the vault's sizes", mountpoint)
	}
	sources, err := importSources(paths, vaultPath, mountpoint)
	if err != nil {
		return err
	}
	var o *offline
	var root plain.Node = mounted{path: mountpoint}
	if mountpoint == "" {
		if o, err = a.openOffline(vaultPath, f.unlock, !f.dryRun); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Close()) }()
		root = o.view().Root()
	}
	to, err := importDir(root, dest, sources)
	if err != nil {
		return asDamage(err)
	}
	defer to.Release()
	// What is planned is what the progress is of; an error is told when it comes up.
	var planned bulk.Planned
	if f.dryRun || f.progress != progressNone {
		quiet := func(string, error) {}
		if f.dryRun {
			quiet = a.sayFailed
		}
		planned = bulk.Plan(a.ctx, to, sources, quiet)
	}
	if f.dryRun {
		return a.sayPlanned(planned, f.json)
	}
	if o == nil {
		e := a.mountExport(mountpoint, f)
		return a.runImport(e, func() error { return e.Run(a.ctx, to.(mounted).path, importJobs(sources)) }, to, sources, planned, f)
	}
	d, ok := plain.DirOf(to)
	if !ok {
		return failf(exitOther, "", "no directory to import into")
	}
	key := o.Vault.Ring().State()
	defer wipe(key)
	m := &bulk.Import{View: o.view(), Root: o.Vault.Root(), Key: key, SyncOf: o.Vault.Root().SyncAll, Geometry: geo, Checksum: f.checksum, Failed: a.sayFailed}
	return a.runImport(m, func() error { return m.Run(a.ctx, d, sources) }, to, sources, planned, f)
}

// geometry is what is asked for; nil: the import chooses.
func (f *importFlags) geometry() (*container.Geometry, error) {
	if f.segment == 0 && f.frame == 0 {
		return nil, nil
	}
	g, err := container.GeometryFor(int(f.segment), int(f.frame))
	if err != nil {
		return nil, failf(exitUsage, "see: coffer init --help", "%w", err)
	}
	return g, nil
}

// mountExport copies into a mount as into any directory of the host; but never into the one below it, should the mount be gone by now.
func (a *app) mountExport(mountpoint string, f importFlags) *bulk.Export {
	within := func(fd int) error {
		var at, top unix.Stat_t
		if err := errors.Join(unix.Fstat(fd, &at), checkReadable(mountpoint), unix.Stat(mountpoint, &top)); err != nil {
			return err
		}
		if at.Dev != top.Dev {
			return failf(exitInUse, "call it again", "the vault is no more mounted at %s", mountpoint)
		}
		return nil
	}
	return &bulk.Export{Checksum: f.checksum, Within: within, Damage: func(error) bool { return false }, Failed: a.sayFailed}
}

// importJobs are the sources as an export takes them.
func importJobs(sources []bulk.Source) (jobs []bulk.Job) {
	for _, s := range sources {
		jobs = append(jobs, bulk.Job{Node: mounted{path: s.Path, name: s.Name}, Name: s.Name})
	}
	return jobs
}

func (a *app) sayFailed(path string, err error) {
	a.say("%s: %s", oneLine(path), oneLine(err.Error()))
}

// importSources checks what is to be copied before a secret is asked for. mountpoint is where the vault is mounted, or "".
func importSources(paths []string, vaultPath, mountpoint string) (sources []bulk.Source, err error) {
	for _, p := range paths {
		abs, err := absolute(p)
		if err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Lstat(abs, &st); err != nil {
			return nil, failf(exitUsage, "check the path", "cannot import %s: %w", p, err)
		}
		for _, of := range []string{vaultPath, mountpoint} {
			if of != "" && (below(abs, of) || st.Mode&unix.S_IFMT == unix.S_IFDIR && below(of, abs)) {
				return nil, failf(exitUsage, "import from elsewhere", "%s is in the vault, or the vault is in it", p)
			}
		}
		s := bulk.Source{Path: abs, Name: filepath.Base(abs)}
		if p == "." || strings.HasSuffix(p, "/.") || abs == "/" {
			s.Name = ""
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// importDir returns the directory of the vault to copy to, and gives a single source the name that DEST says.
func importDir(root plain.Node, dest string, sources []bulk.Source) (plain.Node, error) {
	n, err := plain.Walk(root, dest, true)
	if err == nil {
		st, err := n.Stat()
		if err == nil && st.Type() == unix.S_IFDIR {
			return n, nil
		}
		n.Release()
		if err != nil {
			return nil, pathFailed(dest, err)
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, pathFailed(dest, err)
	}
	if len(sources) != 1 || sources[0].Name == "" {
		return nil, failf(exitUsage, "name a directory of the vault; / is its root", "%s is not a directory of the vault", oneLine(dest))
	}
	if _, err := os.Lstat(dest); err == nil && !filepath.IsAbs(dest) {
		return nil, failf(exitUsage, "give the destination last, such as / for the root; to use this name in the vault, write it with a / in front",
			"%s is no directory of the vault, but a file here: is it one more to import?", oneLine(dest))
	}
	dir, name := filepath.Split(filepath.Clean("/" + dest))
	sources[0].Name = name
	n, err = plain.Walk(root, dir, true)
	return n, pathFailed(dir, err)
}

func (a *app) sayPlanned(p bulk.Planned, asJSON bool) error {
	if asJSON {
		return a.printJSON(p)
	}
	fmt.Fprintf(a.stdout, "%d files to copy, %d bytes; %d finished; %d cannot be copied\n", p.Files, p.Bytes, p.Skipped, p.Failed)
	return nil
}

// copying is bulk work that says how far it is.
type copying interface {
	Progress() (files, size int64, path string)
	Summary() bulk.Summary
}

// runImport runs c, which copies sources to a directory of the vault.
func (a *app) runImport(c copying, run func() error, to plain.Node, sources []bulk.Source, planned bulk.Planned, f importFlags) error {
	p := a.showProgress(f.progress, planned.Files+planned.Skipped, planned.Bytes, c.Progress)
	err := run()
	p.stop()
	sum := c.Summary()
	if err == nil && f.delete {
		sum.Removed, sum.Kept = bulk.Remove(a.ctx, to, sources, a.sayFailed)
	}
	if f.json {
		err = errors.Join(err, a.printJSON(sum))
	} else {
		a.say("%s", sum)
		a.say("%s", sum.Effort())
	}
	if e, ok := c.(*bulk.Export); ok {
		a.sayUnfinished(e)
	}
	switch {
	case a.ctx.Err() != nil:
		return failf(exitInterrupted, "call it again to go on", "interrupted; what is in the vault is whole")
	case disk.IsFull(err):
		return failf(exitHostFull, "make room on the vault's host and call it again to go on", "%w", err)
	case err != nil:
		return err
	case sum.Failed > 0:
		return failf(exitOther, "see above", "%d objects were not copied", sum.Failed)
	case sum.Kept > 0:
		return failf(exitOther, "see above", "%d sources were not removed", sum.Kept)
	}
	return nil
}
