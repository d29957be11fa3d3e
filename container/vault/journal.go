package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// Journal says where the journal of the running session lies and whose it is; the caller adds a size and whom to press. Valid until Close. Close ends the
// session cleanly only when the journal was removed, which says that all of it is durable in its place.
func (v *Vault) Journal() journal.Config { return v.journal(v.state.journal) }

// View shows files as a replay of the journal would leave them, where one was left behind and the vault was opened for reading only. It is nil, and
// good to use, where there is nothing to show. The Vault closes it.
func (v *Vault) View() *redo.View { return v.view }

// Pending says which journal the session before left behind, where it did not end cleanly and the vault was opened for reading only. There need
// not be a piece of it.
func (v *Vault) Pending() (c journal.Config, ok bool) {
	return v.journal(v.state.pending), v.readOnly && v.state.pending != [16]byte{}
}

// InSession tells whether the link sequence seq was drawn in the running session. No I/O.
func (v *Vault) InSession(seq uint64) bool { return v.state.inSession(seq) }

// journal is the configuration of the journal id.
func (v *Vault) journal(id [16]byte) journal.Config {
	return journal.Config{Dir: v.dir, MAC: v.journalMAC, Vault: [16]byte(v.ring.VaultID), ID: id, Events: v.events}
}

func (v *Vault) journalMAC() hash.Hash {
	key := v.ring.Journal()
	if key == nil {
		panic("vault: the journal of a closed vault")
	}
	defer clear(key)
	return hmac.New(sha256.New, key)
}

// takeJournal replays the journal that the state names, or loads it for reading unless noView. Pieces of any other are left alone.
func (v *Vault) takeJournal(noView bool) error {
	if v.state.pending == [16]byte{} {
		all, err := journal.Names(v.dir)
		if err != nil {
			return fmt.Errorf("vault: journal: %w", err)
		}
		if len(all) > 0 {
			v.events.Emit(event.Event{Kind: event.Info, Object: all[0], Offset: -1, Note: fmt.Sprintf("%d pieces of a journal that the state does not name are ignored", len(all))})
		}
		return nil
	}
	if v.readOnly && noView {
		return nil
	}
	key := v.ring.Names()
	c := redo.Config{
		Root: v.root, RootID: v.ring.VaultID.Root(), Names: names.New(key), Journal: v.journal(v.state.pending), Events: v.events,
	}
	clear(key)
	var err error
	if v.readOnly {
		v.view, err = redo.Load(c)
	} else {
		_, err = redo.Replay(c)
	}
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

// noJournal makes sure that nothing is left of the session's journal: a clean state does not name it, and what it has would be lost.
func (v *Vault) noJournal() error {
	all, err := journal.Names(v.dir)
	if err != nil {
		return fmt.Errorf("vault: journal: %w", err)
	}
	if len(all) == 0 {
		return nil
	}
	r, err := journal.Open(v.Journal())
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer r.Close()
	if r.Pieces() > 0 {
		return ErrJournal
	}
	return nil
}
