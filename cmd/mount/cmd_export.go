package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/cmd/mount/bulk"
	"github.com/cofferfs/coffer/container/plain"
	"github.com/cofferfs/coffer/internal/disk"
)

// exportFlags are the choices of one export.
type exportFlags struct {
	unlock   unlockFlags
	salvage  bool
	checksum bool
	json     bool
	progress string
}

func (a *app) exportCmd() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export VAULT PATH... DEST",
		Short: "Copy files and trees out of a vault, without a mount",
		Long: `Copy what is at each PATH, which is counted from the root of the vault, to DEST: into it where it is a directory or where there are several, else under that
name; / stands for everything. Modes, times, symlinks, hard links, user attributes and holes are kept; owners too for root. Sockets and devices are left out.

Every byte is verified. A file is under its name only when all of it is there and durable; one that stands there already is replaced, unless it has the
same size and mtime (with --checksum: the same bytes): then it is finished, so that an interrupted export goes on when it is called again. So does a file of more than
64 MiB, at most 64 MiB or 2 seconds before where it was, if it has not changed since and --salvage is not given; until then its beginning is .coffer-export-*.part beside it.
Beginnings that are not to go on are yours to remove: find DEST -name '.coffer-export-*' -delete, while no export runs there.

A damaged file is not copied, and the others are. With --salvage it is, with holes in the place of what is lost; what is lost is listed, and the copy keeps the
time of its making.

A mounted vault is read through its mount.`,
		Args: rangeArgs(3, 0, "VAULT", "PATH...", "DEST"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.export(args[0], args[1:len(args)-1], args[len(args)-1], f)
		},
	}
	f.unlock.register(cmd.Flags())
	cmd.Flags().BoolVar(&f.salvage, "salvage", false, "copy damaged files as well, with holes for what is lost")
	cmd.Flags().BoolVar(&f.checksum, "checksum", false, "compare bytes, not size and mtime, to find what is finished")
	cmd.Flags().BoolVar(&f.json, "json", false, "print what was done as JSON on standard output")
	registerProgress(cmd.Flags(), &f.progress)
	return cmd
}

func (a *app) export(vaultPath string, paths []string, dest string, f exportFlags) (err error) {
	if err := checkProgress(f.progress); err != nil {
		return err
	}
	dest, err = absolute(dest)
	if err != nil {
		return err
	}
	if vaultPath, err = absolute(vaultPath); err != nil {
		return err
	}
	if below(dest, vaultPath) {
		return failf(exitUsage, "export to a directory outside of the vault", "%s is inside the vault", dest)
	}
	s, err := a.openSource(vaultPath, f.unlock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if m, ok := s.root.(mounted); ok && below(dest, m.path) {
		return failf(exitUsage, "export to a directory outside of the mount", "%s is inside the vault, which is mounted at %s", dest, m.path)
	}
	jobs, err := s.jobs(paths)
	defer func() {
		for _, j := range jobs {
			j.Node.Release()
		}
	}()
	if err != nil {
		return asDamage(err)
	}
	dir, err := exportDir(dest, jobs)
	if err != nil {
		return err
	}
	return a.runExport(s, dir, jobs, f)
}

// below reports whether a path, or what of it exists, is dir or inside of it.
func below(path, dir string) bool {
	path, dir = canonical(path), canonical(dir)
	return path == dir || isBelow(path, dir)
}

// jobs finds what is to be copied.
func (s *source) jobs(paths []string) (jobs []bulk.Job, err error) {
	for _, p := range paths {
		n, err := s.find(p, false)
		if err != nil {
			return jobs, err
		}
		jobs = append(jobs, bulk.Job{Node: n, Name: n.Name()})
	}
	return jobs, nil
}

// exportDir returns the directory to copy to, which it makes where it is missing, and gives a single job the name that DEST says.
func exportDir(dest string, jobs []bulk.Job) (string, error) {
	st, err := os.Stat(dest)
	switch {
	case err == nil && st.IsDir():
		return dest, nil
	case err == nil || !errors.Is(err, fs.ErrNotExist):
		if err == nil && len(jobs) == 1 && isFile(jobs[0].Node) {
			jobs[0].Name = filepath.Base(dest)
			return filepath.Dir(dest), nil
		}
		return "", failf(exitUsage, "name a directory", "cannot export to %s: %w", dest, errors.Join(err, unix.ENOTDIR))
	case len(jobs) == 1 && jobs[0].Name != "":
		jobs[0].Name = filepath.Base(dest)
		return existingDir(filepath.Dir(dest))
	}
	if _, err := existingDir(filepath.Dir(dest)); err != nil {
		return "", err
	}
	return dest, elsewhere("export to another directory", os.Mkdir(dest, 0o777))
}

func isFile(n plain.Node) bool {
	st, err := n.Stat()
	return err == nil && st.Type() != unix.S_IFDIR
}

func existingDir(dir string) (string, error) {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", failf(exitPermission, "export to a directory of your own", "cannot export to %s: %w", dir, err)
	case err != nil || !st.IsDir():
		return "", failf(exitUsage, "make it with: mkdir -p "+quote(dir), "the directory %s does not exist", dir)
	}
	return dir, nil
}

// sayUnfinished names what is left of an export that did not come to its end.
func (a *app) sayUnfinished(e *bulk.Export) {
	for _, path := range e.Unfinished() {
		a.say("%s: the beginning of a file, kept to go on with when this is called again; remove it otherwise", oneLine(path))
	}
}

func (a *app) runExport(s *source, dir string, jobs []bulk.Job, f exportFlags) error {
	e := &bulk.Export{
		Checksum: f.checksum, Salvage: f.salvage, Damage: isDamage,
		Failed: a.sayFailed,
		Lost:   func(path string, from, to int64) { a.say("%s: bytes %d to %d are lost", oneLine(path), from, to) },
	}
	var files, size int64
	if f.progress != progressNone {
		files, size = bulk.Count(a.ctx, jobs)
	}
	p := a.showProgress(f.progress, files, size, e.Progress)
	err := e.Run(a.ctx, dir, jobs)
	p.stop()
	sum := e.Summary()
	if s.vault != nil {
		sum.Add(s.vault.Engine.Stats())
	}
	if f.json {
		err = errors.Join(err, a.printJSON(sum))
	} else {
		a.say("%s", sum)
		a.say("%s", sum.Effort())
	}
	a.sayUnfinished(e)
	hidden := s.damage()
	switch {
	case a.ctx.Err() != nil:
		return failf(exitInterrupted, "call it again to go on", "interrupted; what is under its name is whole")
	case errors.Is(err, unix.EROFS):
		return failf(exitReadOnly, "export to another directory", "%w", err)
	case disk.IsFull(err):
		return failf(exitHostFull, "make room and call it again to go on", "the destination is full: %w", err)
	case err != nil:
		return err
	case sum.LostBytes > 0:
		return failf(exitDamage, "restore them from a backup where there is one", "%d files are damaged: %d bytes are holes now", sum.Damaged, sum.LostBytes)
	case sum.Damaged > 0:
		hint := "restore them from a backup, or save what can be read with: --salvage"
		if f.salvage {
			hint = "restore them from a backup"
		}
		return failf(exitDamage, hint, "%d objects are damaged and were not copied", sum.Damaged)
	case hidden != nil:
		return hidden
	case sum.Failed > 0:
		return failf(exitOther, "see above", "%d objects were not copied", sum.Failed)
	}
	return nil
}
