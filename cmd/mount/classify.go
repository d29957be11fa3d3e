package main

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/journal"
)

// classify gives an error of the layers below its exit code and hint, as an *exitError around it. An error that carries one
// already is returned as it is.
func classify(err error) error {
	var e *exitError
	if err == nil || errors.As(err, &e) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return errInterrupted()
	}
	if use, ok := asInUse(err); ok {
		return inUse(use)
	}
	for _, row := range errorTable {
		if errors.Is(err, row.is) {
			return &exitError{code: row.code, hint: row.hint, err: err}
		}
	}
	return &exitError{code: exitOther, err: err}
}

// elsewhere is classify of an error of a place that is not the vault's host, for which the hints of errorTable are wrong.
func elsewhere(hint string, err error) error {
	var e *exitError
	if !errors.As(classify(err), &e) {
		return nil
	}
	return &exitError{code: e.code, hint: hint, err: err}
}

// journalHint is for a journal that cannot be replayed as it is.
const journalHint = "see what it lost: coffer verify VAULT; coffer verify --repair VAULT replays what is whole and puts it aside; mount -o ro shows what is whole"

// errorTable is searched from the top: the host's errors last, since the classes of the layers above may wrap them.
var errorTable = []struct {
	is   error
	code Code
	hint string
}{
	{vault.ErrNotVault, exitVaultDir, "check the path; a new vault is made with: coffer init VAULT; one whose .coffer is lost opens with: coffer recover VAULT"},
	{vault.ErrNotEmpty, exitVaultDir, "choose an empty directory, or one that does not exist yet"},
	{vault.ErrVersion, exitConfig, "it was made by a newer coffer: update this one"},
	{vault.ErrFeature, exitConfig, "it was made by a newer coffer: update this one"},
	{vault.ErrKDF, exitConfig, "use a machine with more memory, or other values of --kdf-memory and --kdf-time"},
	{vault.ErrEmptyPassphrase, exitEmpty, "give a passphrase that is not empty"},
	{vault.ErrPassphrase, exitPassphrase, "try again; if it is lost, the recovery key opens the vault: coffer recover VAULT"},
	{vault.ErrKeyFile, exitPassphrase, "use the key file that was added to this vault: coffer key list VAULT"},
	{vault.ErrKeyFileSize, exitReadSecret, "a key file is 32 bytes to 64 KiB of random bytes; coffer key add --keyfile makes one that does not exist yet"},
	{vault.ErrIdentity, exitPassphrase, "see the recipients with: coffer key list --json VAULT"},
	{vault.ErrAgeFailed, exitReadSecret, "check that its plugin is installed and its device is there"},
	{vault.ErrRecipient, exitUsage, "it looks like age1…, as age-keygen prints it"},
	{vault.ErrLabel, exitUsage, "choose a shorter one"},
	{vault.ErrNoSlot, exitUsage, "see the ids with: coffer key list VAULT"},
	{vault.ErrLastSlot, exitUsage, "add another one first: coffer key add VAULT"},
	{vault.ErrSlots, exitUsage, "remove one first: coffer key remove VAULT SLOT"},
	{vault.ErrConfig, exitConfig, "restore .coffer/config from a backup, or rebuild it with the recovery key: coffer recover VAULT"},
	{vault.ErrParams, exitUsage, "see: coffer help init"},
	{vault.ErrCopied, exitCopied, "if the original is not in use and this copy is the one to keep: coffer mount --recover VAULT MOUNTPOINT"},
	{vault.ErrState, exitConfig, "restore .coffer/state of this very vault, or remove it: it is rebuilt at the next mount"},
	{disk.ErrNotRegular, exitConfig, "look at what stands there; remove it if it is .coffer/state or .coffer/lock: these are made again"},
	{unix.ELOOP, exitConfig, "look at what stands there; remove it if it is .coffer/state or .coffer/lock: these are made again"},
	{vault.ErrRecoveryKey, exitRecoveryKey, "use the recovery key that was shown when this vault was made"},
	{keys.ErrRecoveryChecksum, exitRecoveryKey, "compare it with your copy, group by group"},
	{keys.ErrRecoveryText, exitRecoveryKey, "it is 14 groups of four letters and digits"},
	{vault.ErrOtherVault, exitConfig, "use a backup of the config of this very vault"},
	{vault.ErrNoContainer, exitVaultDir, "the vault must hold at least one file to rebuild the config from"},
	{vault.ErrReadOnly, exitReadOnly, ""},
	{vault.ErrJournal, exitOther, "mount the vault again: its journal is replayed"},
	{redo.ErrLost, exitDamage, journalHint},
	{vault.ErrUnnamed, exitDamage, journalHint},
	{redo.ErrKind, exitConfig, "its journal was written by a newer coffer: update this one"},
	{journal.ErrVersion, exitConfig, "its journal was written by a newer coffer: update this one"},
	{redo.ErrMalformed, exitDamage, journalHint},
	{journal.ErrMalformed, exitDamage, journalHint},
	{journal.ErrPieces, exitDamage, journalHint},
	{container.ErrVersion, exitConfig, "it was made by a newer coffer: update this one"},
	{container.ErrGeometry, exitUsage, "see: coffer help init"},
	{container.ErrAuth, exitDamage, "restore the files from a backup"},
	{container.ErrCorrupt, exitDamage, "restore the files from a backup"},
	{unix.ENOSPC, exitHostFull, "make room on the vault's host, or mount for reading only: -o ro"},
	{unix.EDQUOT, exitHostFull, "make room in the quota of the vault's host, or mount for reading only: -o ro"},
	{unix.EROFS, exitReadOnly, "the vault's host is read-only; mount for reading only: -o ro"},
	{fs.ErrPermission, exitPermission, "run as the vault's owner"},
	{redo.ErrIncomplete, exitOther, "make every directory of the vault readable, or mount for reading only: -o ro"},
	{unix.EMFILE, exitOther, "raise the limit of open files: ulimit -n"},
}
