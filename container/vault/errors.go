package vault

import (
	"errors"
	"fmt"
)

// Error classes. Every error of this package wraps one of them or is an I/O error of the host (a *fs.PathError).
var (
	// ErrNotVault: the directory holds no .coffer directory.
	ErrNotVault = errors.New("not a coffer vault")
	// ErrNotEmpty: Create found something in the directory.
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrConfig: the config is missing, damaged or not what it must be.
	ErrConfig = errors.New("config cannot be used")
	// ErrTampered: the config is well formed but was not written with the vault's key. It is an ErrConfig as well.
	ErrTampered = fmt.Errorf("%w: not authentic", ErrConfig)
	// ErrVersion: config or state has a newer layout than this program knows.
	ErrVersion = errors.New("unknown format version")
	// ErrFeature: config or state names a feature, suite, digest or slot kind that this program does not know.
	ErrFeature = errors.New("unknown format feature")
	// ErrParams: there is no such suite, digest or geometry.
	ErrParams = errors.New("no such vault parameters")
	// ErrKDF: key derivation parameters are out of bounds, those of the machine's memory included.
	ErrKDF = errors.New("key derivation parameters out of bounds")
	// ErrPassphrase: no key slot opens with the passphrase.
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrEmptyPassphrase: an empty passphrase is never accepted.
	ErrEmptyPassphrase = errors.New("empty passphrase")
	// ErrKeyFile: no key slot opens with the key file.
	ErrKeyFile = errors.New("wrong key file")
	// ErrKeyFileSize: a key file is shorter than MinKeyFile or longer than MaxKeyFile.
	ErrKeyFileSize = errors.New("length of the key file is out of bounds")
	// ErrIdentity: no key slot opens with the age identities.
	ErrIdentity = errors.New("wrong identity")
	// ErrAgeFailed: an identity, a recipient or its plugin failed, which does not say that it is the wrong one.
	ErrAgeFailed = errors.New("age identity or recipient could not be used")
	// ErrRecipient: no age recipient that a slot can hold.
	ErrRecipient = errors.New("malformed recipient")
	// ErrLabel: a slot's label is too long or cannot be shown.
	ErrLabel = errors.New("a label is up to 64 bytes of printable text")
	// ErrNoSlot: there is no slot of that id.
	ErrNoSlot = errors.New("no such key slot")
	// ErrLastSlot: the only slot cannot be removed.
	ErrLastSlot = errors.New("the last key slot cannot be removed")
	// ErrSlots: there are as many slots as a config can hold.
	ErrSlots = errors.New("too many key slots")
	// ErrState: the state is authentic to another key or vault: it was changed or comes from elsewhere.
	ErrState = errors.New("state is not authentic")
	// ErrCopied: a copy of a vault that was not closed cleanly; OpenOptions.Recover opens it.
	ErrCopied = errors.New("copy of a vault that was not closed cleanly")
	// ErrInUse: another process or host has the vault; the error is an *InUseError.
	ErrInUse = errors.New("vault is in use")
	// ErrReadOnly: the vault was opened for reading only.
	ErrReadOnly = errors.New("vault is read-only")
	// ErrClosed: the vault is closed.
	ErrClosed = errors.New("vault is closed")
	// ErrJournal: the journal of the session was not removed before Close: the session stays open, to be replayed.
	ErrJournal = errors.New("the journal of the session is still there")
	// ErrUnnamed: the state is lost, and with it which journal is to be replayed; OpenOptions.Salvage finds out.
	ErrUnnamed = errors.New("the state is lost, and there is a journal that it named")
	// ErrExhausted: the link sequences are used up, which no honest use reaches.
	ErrExhausted = errors.New("link sequences are used up")
	// ErrRecoveryKey: the recovery key is well formed but belongs to another vault.
	ErrRecoveryKey = errors.New("recovery key does not belong to this vault")
	// ErrOtherVault: a config to be restored is that of another vault.
	ErrOtherVault = errors.New("belongs to another vault")
	// ErrNoContainer: no container was found to rebuild a config from.
	ErrNoContainer = errors.New("no container found to rebuild the config from")
)

// FallbackError says that config could not be used and config.bak was taken in its place; Err is what is wrong with config.
// It is a warning, returned by Config.Warning, and not an error of any call.
type FallbackError struct{ Err error }

func (e *FallbackError) Error() string {
	return fmt.Sprintf("vault: using config.bak in place of config: %v", e.Err)
}

func (e *FallbackError) Unwrap() error { return e.Err }
