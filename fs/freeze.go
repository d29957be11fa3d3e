package fs

import (
	"errors"
	"sync"
	"time"

	"github.com/cofferfs/coffer/internal/event"
)

// change lets a request that may change something pass, or wait for the end of a freeze.
func (w *Watch) change() (done func()) {
	w.changes.RLock()
	return w.changes.RUnlock
}

// Freezer holds a mounted vault still, so that a snapshot or copy of it is what a clean unmount would leave. Its methods may be called concurrently.
type Freezer struct {
	stack  *Stack
	watch  *Watch
	events event.Sink

	mu     sync.Mutex // guards what follows, and is held while the vault freezes or thaws
	thawed *time.Timer
}

// ErrFrozen: the vault is frozen already. ErrNotFrozen: it is not, or its time has run out.
var (
	ErrFrozen    = errors.New("the vault is frozen already")
	ErrNotFrozen = errors.New("the vault is not frozen")
)

// NewFreezer freezes stack, whose requests pass through watch.
func NewFreezer(stack *Stack, watch *Watch, events event.Sink) *Freezer {
	return &Freezer{stack: stack, watch: watch, events: events}
}

// Freeze returns when everything written so far is on the host, durably, and nothing there changes until Thaw, or until the timeout. Reads are answered meanwhile;
// what would change something waits: the kernel takes writes into its own memory, as far as that goes. A vault that is mounted for reading only is still anyway.
// On an error nothing is frozen; where it is one of the vault's state, nothing can be changed until the vault is mounted anew.
func (z *Freezer) Freeze(timeout time.Duration) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.freeze(timeout)
}

// freeze is Freeze under mu.
func (z *Freezer) freeze(timeout time.Duration) error {
	if z.thawed != nil {
		return ErrFrozen
	}
	if err := z.place(); err != nil { // most of it while requests still pass
		return err
	}
	z.watch.changes.Lock()
	if err := z.still(); err != nil {
		z.watch.changes.Unlock()
		return err
	}
	var own *time.Timer
	own = time.AfterFunc(timeout, func() {
		z.mu.Lock()
		defer z.mu.Unlock()
		if z.thawed == own && z.thaw() == nil { // it may have been thawed meanwhile, and frozen anew
			z.events.Emit(event.Event{Kind: event.Info, Offset: -1, Note: "the freeze ended by itself, after its time"})
		}
	})
	z.thawed = own
	return nil
}

// place brings everything written so far to its place on the host, durably.
func (z *Freezer) place() error {
	return errors.Join(z.stack.Cache.FlushAll(), z.stack.Engine.Checkpoint())
}

func (z *Freezer) still() error {
	if z.stack.Vault.ReadOnly() {
		return nil
	}
	// Files that were only open until the journal's content had come to the host are closed now: that may set their times.
	if err := z.place(); err != nil {
		return err
	}
	z.stack.FS.closing.wait()
	if err := z.stack.Engine.Suspend(); err != nil {
		return err
	}
	if err := z.stack.Vault.Suspend(); err != nil {
		// The host may have got a state that says clean all the same: who mounts next would look for no journal, so that nothing may go into one.
		return z.stack.Engine.Fail("a freeze", err)
	}
	return nil
}

// Thaw ends a freeze. An error other than ErrNotFrozen says that nothing can be changed until the vault is mounted anew.
func (z *Freezer) Thaw() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.thaw()
}

// thaw is Thaw under mu.
func (z *Freezer) thaw() error {
	if z.thawed == nil {
		return ErrNotFrozen
	}
	z.thawed.Stop()
	z.thawed = nil
	defer z.watch.changes.Unlock()
	if z.stack.Vault.ReadOnly() {
		return nil
	}
	if err := z.stack.Vault.Resume(); err != nil {
		return z.stack.Engine.Fail("the end of a freeze", err)
	}
	return z.stack.Engine.Resume(z.stack.Vault.Journal().ID)
}

// Hold calls fn while no request changes anything: names and attributes stay as they are. An error says that fn was not called.
func (z *Freezer) Hold(fn func()) error { return z.hold(fn, false) }

// HoldSynced is Hold when, besides, everything written so far is in its place on the host.
func (z *Freezer) HoldSynced(fn func()) error { return z.hold(fn, true) }

func (z *Freezer) hold(fn func(), synced bool) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.thawed == nil { // else it is as still as can be
		synced = synced && !z.stack.Vault.ReadOnly()
		if synced { // most of it while requests still pass
			if err := z.place(); err != nil {
				return err
			}
		}
		z.watch.changes.Lock()
		defer z.watch.changes.Unlock()
		if synced {
			if err := z.place(); err != nil {
				return err
			}
		}
	}
	fn()
	return nil
}
