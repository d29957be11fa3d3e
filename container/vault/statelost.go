package vault

import (
	"errors"
	"math"
	"slices"

	"github.com/cofferfs/coffer/internal/event"
)

// rebuild makes up a state for one that is lost: one unclean session that covers everything, and link sequences above every
// one in the tree. Where the tree cannot be walked to its end, the interval has no end.
func (s *state) rebuild(o stateOptions, why error) error {
	highest, err := o.scan()
	if errors.Is(err, ErrState) {
		return err
	}
	end := min(highest, lastLink) + 1
	s.cur = stateSlot{clean: true, vault: s.ring.VaultID, nextLink: end, sessions: []session{everything(end)}}
	if err != nil {
		s.cur.sessions[0].end = math.MaxUint64
		why = errors.Join(why, err)
	}
	s.slot, s.rebuilt = 1, true
	if s.f != nil {
		if s.cur.inode, s.cur.birth, err = identity(s.f); err != nil {
			return err
		}
	}
	o.events.Emit(event.Event{Kind: event.Damage, Object: stateName, Offset: -1, Err: why, Note: "the state is lost and was rebuilt: every file may have been in use"})
	return nil
}

// believe takes cur, whose slot is good, for the state; broken says what is wrong with the other slot. Where that was the newer one, which named a journal
// that is there, the state is rebuilt, and so where mark was the last to write it.
func (s *state) believe(o stateOptions, broken error) error {
	marked := !s.cur.clean && s.cur.journal == [16]byte{}
	if (broken != nil || marked) && o.orphaned != nil {
		if lost, err := o.orphaned(s.cur.journal); err != nil {
			return err
		} else if lost {
			// The slot that is good is written over last, and loses against the other from then on.
			slot, sequence := s.slot, s.cur.sequence
			err = s.rebuild(o, broken)
			s.slot, s.cur.sequence = slot, sequence
			return err
		}
	}
	if broken == nil {
		return s.checkIdentity(o)
	}
	// The torn slot was being written, and nothing it reserved was given out; rot looks the same and may have
	// hit a slot that was in use, so what one slot can have reserved more is skipped.
	s.cur.nextLink = min(s.cur.nextLink, lastLink) + 2*reserveBlock
	o.events.Emit(event.Event{Kind: event.Damage, Object: stateName, Offset: -1, Err: broken, Note: "one of two state slots is damaged; the other is used"})
	return s.checkIdentity(o)
}

// mark makes durable that the state was lost, and what it was rebuilt to, before the journal that it named is touched: a session that ended uncleanly and
// names no journal.
func (s *state) mark(start int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.cur
	n.journal, n.clean = [16]byte{}, false
	n.sessions = append(slices.Clone(mergeSessions(n.sessions, maxSessions-2)), session{start: start, first: s.next})
	if err := s.put(n); err != nil {
		return err
	}
	s.cur.closeOpen()
	past := slices.Clone(s.cur.sessions)
	s.unclean.Store(&past)
	return nil
}
