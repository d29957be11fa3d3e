package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// Names of FORMAT.md section 2, and the two that exist for a moment or after a recovery.
const (
	cofferDir     = ".coffer"
	configName    = "config"
	backupName    = "config.bak"
	tempName      = "config.tmp"
	damagedName   = "config.damaged"
	stateName     = "state"
	lockName      = "lock"
	cofferDirMode = 0o700
	fileMode      = 0o600
)

// ReadConfig reads the config of the vault at path; it needs no secret and writes nothing. When config is missing or damaged
// and config.bak is good, the latter is returned and Warning tells. Errors wrap ErrNotVault, ErrConfig (with fs.ErrNotExist
// when both files are missing), ErrVersion or ErrFeature, or are the host's.
func ReadConfig(path string) (*Config, error) {
	root, dir, err := openDirs(path, disk.OpenReadOnly)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	defer dir.Close()
	return readConfigs(dir)
}

// ReadConfigDir is ReadConfig on a directory that is open already, which stays the caller's.
func ReadConfigDir(root disk.Dir) (*Config, error) {
	dir, err := openCoffer(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readConfigs(dir)
}

// openDirs opens the vault directory and the .coffer directory in it.
func openDirs(path string, open func(path string) (disk.Dir, error)) (root, dir disk.Dir, err error) {
	root, err = open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("vault: open: %w", err)
	}
	dir, err = openCoffer(root)
	if err != nil {
		root.Close()
		return nil, nil, err
	}
	return root, dir, nil
}

func openCoffer(root disk.Dir) (disk.Dir, error) {
	dir, err := root.OpenDir(cofferDir)
	if err == nil {
		return dir, nil
	}
	for _, other := range []error{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP} {
		if errors.Is(err, other) {
			return nil, fmt.Errorf("vault: open: %w: %w", ErrNotVault, err)
		}
	}
	return nil, fmt.Errorf("vault: open: %w", err)
}

// readConfigs reads config and config.bak and decides which one counts. A config of a newer version or with an unknown
// feature is not damaged, and no old backup takes its place; nor does one for lack of permission.
func readConfigs(dir disk.Dir) (*Config, error) {
	c, err := readConfig(dir, configName)
	if err != nil && (errors.Is(err, ErrVersion) || errors.Is(err, ErrFeature) || errors.Is(err, fs.ErrPermission)) {
		return nil, err
	}
	backup, berr := readConfig(dir, backupName)
	switch {
	case err == nil:
		c.differs = berr != nil || !bytes.Equal(c.file(), backup.file())
		return c, nil
	case berr == nil:
		backup.warning, backup.differs = &FallbackError{Err: err}, true
		return backup, nil
	}
	return nil, err
}

// readConfig reads one of the two files. Everything in its way but a lack of permission is an ErrConfig: what it says about
// the host stays in the chain.
func readConfig(dir disk.Dir, name string) (*Config, error) {
	data, err := readFile(dir, name, maxConfigSize)
	if err != nil {
		return nil, fmt.Errorf("vault: read %s: %w: %w", name, ErrConfig, err)
	}
	return parseConfig(data)
}

var errTooLarge = errors.New("file is too large")

// readFile reads a regular file of at most limit bytes. Its size is looked at before anything is read, and what it grows by
// meanwhile is not read either.
func readFile(dir disk.Dir, name string, limit int64) ([]byte, error) {
	f, err := dir.Open(name, disk.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		return nil, err
	}
	if st.Size > limit {
		return nil, fmt.Errorf("%s: %d bytes: %w", name, st.Size, errTooLarge)
	}
	return io.ReadAll(io.NewSectionReader(f, 0, st.Size))
}

// writeConfigs replaces config, then config.bak. Power may fail between any two steps: config is old or new and never torn,
// and a backup that was left behind is rewritten by the next Open for writing. It ends with both durable and the same, so
// that a slot that is gone from c survives in neither. The caller holds the config lock.
func writeConfigs(dir disk.Dir, c *Config) error {
	for _, name := range []string{configName, backupName} {
		if err := replaceFile(dir, name, c.file()); err != nil {
			return fmt.Errorf("vault: write %s: %w", name, err)
		}
	}
	return nil
}

// replaceFile makes name hold data: write beside, sync, rename, sync the directory.
func replaceFile(dir disk.Dir, name string, data []byte) error {
	if err := dir.Unlink(tempName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := createFile(dir, tempName, data); err != nil {
		return err
	}
	if err := dir.Rename(tempName, dir, name, 0); err != nil {
		return errors.Join(err, dir.Unlink(tempName))
	}
	return dir.Sync()
}

// createFile makes a new file with synced data; on failure it is gone again. The directory is not synced.
func createFile(dir disk.Dir, name string, data []byte) error {
	f, err := dir.Create(name, fileMode)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(err, dir.Unlink(name))
	}
	return nil
}

// repairConfigs makes config and config.bak the same again, at the start of a session for writing. c is authentic. A config
// that is authentic itself wins over c (a passphrase was changed since c was read); one that is not is kept as
// config.damaged.
func repairConfigs(path string, dir disk.Dir, c *Config, ring *keys.Ring, events event.Sink) error {
	if !c.differs {
		return nil
	}
	l, err := lockConfig(path, dir)
	if errors.Is(err, ErrInUse) {
		return nil // whoever changes the config right now rewrites both files
	}
	if err != nil {
		return err
	}
	defer l.close()
	now, why := readConfig(dir, configName)
	if why == nil {
		why = now.authenticate(ring)
	}
	if why != nil {
		if err := keepDamaged(dir); err != nil {
			return err
		}
		now = c
	}
	if err := writeConfigs(dir, now); err != nil {
		return err
	}
	events.Emit(event.Event{Kind: event.Repaired, Object: cofferDir, Offset: -1, Err: why, Note: "config and config.bak differed and are the same again"})
	return nil
}

// keepDamaged moves whatever stands in the place of config to config.damaged. That file may hold old key slots: it is
// there for a look at what happened and is to be removed by hand.
func keepDamaged(dir disk.Dir) error {
	err := dir.Rename(configName, dir, damagedName, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("vault: keep the damaged config: %w", err)
	}
	return nil
}
