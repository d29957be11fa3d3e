package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/internal/disk"
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

// JournalDamage says what the journal that was found when the vault was opened lost; nil: nothing, or there was none.
func (v *Vault) JournalDamage() *redo.Damage {
	if v.view != nil {
		return v.view.Damage()
	}
	return v.damage
}

// orphaned tells whether there is a journal of this vault, and none of id.
func (v *Vault) orphaned(id [16]byte) (bool, error) {
	all, err := journal.IDs(v.journal(id))
	return len(all) > 0 && !slices.Contains(all, id), err
}

// adopt finds the journal to be taken where the state that named it is lost: the only one there is. Unless asked to it writes nothing of it to files.
func (v *Vault) adopt(o OpenOptions) error {
	all, err := journal.IDs(v.journal([16]byte{}))
	switch {
	case err != nil:
		return err
	case len(all) > 0 && !o.ReadOnly && !o.Salvage:
		return ErrUnnamed
	case len(all) == 1:
		v.state.pending = all[0]
	case len(all) > 1:
		v.events.Emit(event.Event{Kind: event.Damage, Object: "journal.*", Offset: -1,
			Note: fmt.Sprintf("the state is lost, and there are pieces of %d journals: nobody knows which is the last, and none is replayed", len(all))})
	}
	return nil
}

// takeJournal replays the journal that the state names, or loads it for reading unless NoView. Pieces of any other are left alone.
func (v *Vault) takeJournal(o OpenOptions) error {
	doubtful := v.state.rebuilt
	if doubtful {
		if err := v.adopt(o); err != nil {
			return fmt.Errorf("vault: journal: %w", err)
		}
	}
	all, err := journal.Names(v.dir)
	if err != nil {
		return fmt.Errorf("vault: journal: %w", err)
	}
	if v.state.pending == [16]byte{} && (!doubtful || v.readOnly || len(all) == 0) {
		if len(all) > 0 {
			v.events.Emit(event.Event{Kind: event.Info, Object: all[0], Offset: -1, Note: fmt.Sprintf("%d pieces of a journal that the state does not name are ignored", len(all))})
		}
		return nil
	}
	if v.readOnly && o.NoView {
		return nil
	}
	key := v.ring.Names()
	c := redo.Config{
		Root: v.root, RootID: v.ring.VaultID.Root(), Names: names.New(key), Journal: v.journal(v.state.pending), Events: v.events,
		Salvage: o.Salvage || v.readOnly, Doubtful: doubtful, Better: v.better,
	}
	clear(key)
	if v.readOnly {
		v.view, err = redo.Load(c)
		if d := v.view.Damage(); d != nil && !o.Salvage {
			v.events.Emit(event.Event{Kind: event.Damage, Object: "journal.*", Offset: -1, Err: redo.ErrLost, Note: "what is left of the journal is shown"})
		}
	} else {
		if doubtful {
			start, err := v.sessionStart()
			if err == nil {
				err = v.state.mark(start)
			}
			if err != nil {
				return err
			}
		}
		var res redo.Result
		res, err = redo.Replay(c)
		v.damage = res.Damage
	}
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

// better tells whether a file is worth more as it stands on the host than as a journal that is damaged or doubtful would leave it.
func (v *Vault) better(id keys.ObjectID, host, replayed disk.File) bool {
	eng, err := container.NewEngine(container.EngineConfig{Ring: v.ring, Params: v.Params()})
	if err != nil {
		return false
	}
	defer func() { _ = eng.Close(false) }()
	have, would := eng.Worth(host, id), eng.Worth(replayed, id)
	return have.Better(would)
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
