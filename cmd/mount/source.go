package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/plain"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
	vaultfs "github.com/cofferfs/coffer/fs"
	"github.com/cofferfs/coffer/internal/event"
)

// offline is a vault that is open in this process without a mount.
type offline struct {
	*vaultfs.Stack
	warnings warnings
}

// warnings counts what the layers report as damage and says each of it. It is used by one goroutine at a time; the layers call from several.
type warnings struct {
	record recorder
	say    func(format string, args ...any)
}

func (f *warnings) sink(e event.Event) {
	switch e.Kind {
	case event.Damage, event.Duplicate:
		text := e.Note
		if e.Err != nil {
			text = e.Err.Error()
		}
		f.say("warning: %s: %s", e.Kind, oneLine(text))
	}
	f.record.sink(e)
}

// damage is how often damage was reported.
func (f *warnings) damage() uint64 {
	_, kinds := f.record.snapshot()
	return kinds[string(event.Damage)] + kinds[string(event.Duplicate)]
}

// openOffline unlocks the vault at path and opens it: for writing, alone, or for reading only, shared with other readers, and writing nothing to the host.
func (a *app) openOffline(path string, f unlockFlags, write bool) (*offline, error) {
	cfg, err := a.loadConfig(path)
	if err != nil {
		return nil, err
	}
	if write {
		if err := checkWritable(path, ""); err != nil {
			return nil, err
		}
	}
	if err := checkUnused(path, !write); err != nil {
		return nil, err
	}
	mk, _, err := a.unlock(path, cfg, f, "Passphrase")
	if err != nil {
		return nil, err
	}
	defer mk.Destroy()
	if err := raiseFileLimit(); err != nil {
		a.say("warning: cannot raise the limit of open files: %v", err)
	}
	o := &offline{warnings: warnings{say: a.say}}
	v, err := vault.Open(path, cfg, mk, vault.OpenOptions{ReadOnly: !write, Events: o.warnings.sink})
	if err != nil {
		return nil, err
	}
	if o.Stack, err = vaultfs.NewStack(v, vaultfs.StackConfig{NoJournal: true, Events: o.warnings.sink}); err != nil {
		return nil, err
	}
	return o, nil
}

// source is where the plain tree of a vault is read: the vault itself, or its mount.
type source struct {
	root   plain.Node
	vault  *offline // nil: root is a mount
	closed bool
}

// openSource opens the vault at path for reading. Where a writer of this host has it mounted at a place that this user can read, that is read in its place,
// and no secret asked for; any other use is refused with the reason.
func (a *app) openSource(path string, f unlockFlags) (*source, error) {
	path, err := absolute(path)
	if err != nil {
		return nil, err
	}
	if err := checkVaultDir(path); err != nil {
		return nil, err
	}
	mountpoint, err := writersMount(path)
	if err != nil {
		return nil, err
	}
	if mountpoint != "" {
		return &source{root: mounted{path: mountpoint}}, nil
	}
	o, err := a.openOffline(path, f, false)
	if err != nil {
		return nil, err
	}
	return &source{root: o.view().Root(), vault: o}, nil
}

// lookAt calls show with what is at a path of the vault at vaultPath.
func (a *app) lookAt(vaultPath, name string, follow bool, f unlockFlags, show func(s *source, n plain.Node) error) (err error) {
	s, err := a.openSource(vaultPath, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	n, err := s.find(name, follow)
	if err != nil {
		return asDamage(err)
	}
	defer n.Release()
	return show(s, n)
}

// writersMount is where a writer of this host has a vault mounted: "" where there is none. One that this user cannot use, for whatever reason, is an error.
func writersMount(path string) (string, error) {
	s := peekLock(path)
	if !s.Writer || s.leaving() {
		return "", nil
	}
	use := inUse(&vault.InUseError{Holder: s.Holder, Reason: "it is mounted"})
	if s.Holder.Mountpoint == "" {
		return "", use
	}
	if err := checkReadable(s.Holder.Mountpoint); err != nil {
		return "", fmt.Errorf("%w; through the mount: %w", use, err)
	}
	return s.Holder.Mountpoint, nil
}

// view is the plain tree.
func (o *offline) view() *plain.View {
	return &plain.View{Tree: o.Tree, Engine: o.Engine, Attrs: o.Attrs, UncleanTime: o.Vault.UncleanTime, UncleanSeq: o.Vault.UncleanSeq}
}

// checkReadable says why a mount cannot be read by this user.
func checkReadable(mountpoint string) error {
	m, ok, err := mountAt(mountpoint)
	switch {
	case err != nil:
		return err
	case !ok || m.fsType != fsType:
		return fmt.Errorf("%s is no coffer mount in this mount name space", mountpoint)
	}
	var st unix.Stat_t
	if err := unix.Stat(mountpoint, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: mountpoint, Err: err}
	}
	return nil
}

// damage is how much damage was met beside the errors of the calls.
func (s *source) damage() error {
	if s.vault == nil {
		return nil
	}
	if n := s.vault.warnings.damage(); n > 0 {
		return failf(exitDamage, "restore the files from a backup", "%d findings of damage: what they concern is hidden or unreadable", n)
	}
	return nil
}

// close releases the vault.
func (s *source) close() error {
	if s.vault == nil || s.closed {
		return nil
	}
	s.closed = true
	return s.vault.Close()
}

// find returns the node of a path in the vault.
func (s *source) find(name string, follow bool) (plain.Node, error) {
	n, err := plain.Walk(s.root, name, follow)
	return n, pathFailed(name, err)
}

// pathFailed gives an error of a path in the vault its words.
func pathFailed(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return failf(exitOther, "see what is there with: coffer ls VAULT", "%s: no such file in the vault", oneLine(name))
	case errors.Is(err, unix.ENOTDIR):
		return failf(exitOther, "see what is there with: coffer ls VAULT", "%s: not a directory", oneLine(name))
	case errors.Is(err, unix.EISDIR):
		return failf(exitOther, "name a file; coffer ls lists directories, coffer export copies them", "%s: is a directory", oneLine(name))
	case errors.Is(err, unix.EINVAL):
		return failf(exitOther, "name a file", "%s: has no contents to read", oneLine(name))
	case errors.Is(err, plain.ErrOutside), errors.Is(err, unix.ELOOP):
		return failf(exitOther, "name the file itself", "%s: %w", oneLine(name), err)
	}
	return fmt.Errorf("%s: %w", oneLine(name), err)
}

// isDamage reports whether an error says that stored bytes are not what they were; a mount answers EIO for all of that.
func isDamage(err error) bool {
	for _, class := range []error{container.ErrAuth, container.ErrCorrupt, container.ErrTruncated, container.ErrNoHeader, container.ErrKey, container.ErrIdentity,
		container.ErrSize, container.ErrDigest, dirs.ErrName, dirs.ErrDuplicate, xattrs.ErrBadAttr, unix.EIO} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// asDamage gives damage its code.
func asDamage(err error) error {
	var e *exitError
	if err == nil || errors.As(err, &e) || !isDamage(err) {
		return err
	}
	return failf(exitDamage, "restore it from a backup, or save what can be read with: coffer export --salvage", "%w", err)
}

// isTerminalOut reports whether w is a terminal.
func isTerminalOut(w any) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}
