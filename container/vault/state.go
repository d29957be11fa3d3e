package vault

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

const (
	// reserveBlock is how many link sequences are reserved with one write of the state; the next block is reserved in the
	// background when half of it is left.
	reserveBlock = 4096
	// lastLink keeps the arithmetic of reservations from overflowing.
	lastLink = math.MaxUint64 - 4*reserveBlock
)

// state is .coffer/state during a session: the owner of link sequences and of the record of unclean sessions. Safe for
// concurrent use. Nothing of it is written when it was opened for reading.
type state struct {
	f        disk.File // nil where there is none and nothing may be written
	ring     *keys.Ring
	readOnly bool
	unclean  atomic.Pointer[[]session] // past sessions; the slice does not change
	pending  [16]byte                  // journal of the session that did not end cleanly before this one; zero: none
	journal  [16]byte                  // of the running session

	mu   sync.Mutex // guards everything below
	cond sync.Cond  // writing ended
	// cur is what the newest slot says; slot is where it stands.
	cur     stateSlot
	slot    int
	next    uint64    // next link sequence; those below cur.nextLink are reserved and durable
	first   uint64    // first link sequence of the running session
	skipped []session // intervals from first on that were not drawn but seen, ascending
	writing bool      // somebody writes a slot with mu released
	rebuilt bool      // neither slot on the host may be believed
	err     error     // sticky: what is durable is unknown after a failed write or sync
}

// stateOptions are what openState needs to know of the vault.
type stateOptions struct {
	readOnly bool
	recover  bool                            // accept a copied or inauthentic state
	scan     func() (uint64, error)          // the highest link sequence in the tree, for a lost state
	orphaned func(id [16]byte) (bool, error) // whether there is a journal, and none of id
	events   event.Sink
}

// createState writes the first slot of a new vault: clean, and no link sequence issued. Both file and slot are durable when
// it returns, the name is not.
func createState(dir disk.Dir, ring *keys.Ring) error {
	f, err := dir.Create(stateName, fileMode)
	if err != nil {
		return fmt.Errorf("vault: create state: %w", err)
	}
	defer f.Close()
	s := &state{f: f, ring: ring, slot: 1, cur: stateSlot{clean: true, vault: ring.VaultID, nextLink: 1}}
	if s.cur.inode, s.cur.birth, err = identity(f); err != nil {
		return fmt.Errorf("vault: create state: %w", err)
	}
	if err := f.Truncate(stateSize); err != nil {
		return fmt.Errorf("vault: create state: %w", err)
	}
	return s.write(s.cur)
}

// identity returns what a copied file does not share with its original.
func identity(f disk.File) (inode uint64, birth int64, err error) {
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		return 0, 0, err
	}
	birth, err = f.BirthTime()
	return st.Ino, birth, err
}

// openState reads the state, or rebuilds it when it is lost. No session is begun yet and nothing is written, but a missing
// file is created where writing is allowed.
func openState(dir disk.Dir, ring *keys.Ring, o stateOptions) (*state, error) {
	s := &state{ring: ring, readOnly: o.readOnly}
	s.cond.L = &s.mu
	f, err := dir.Open(stateName, disk.Access(o.readOnly))
	switch {
	case err == nil:
		s.f = f
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("vault: open state: %w", err)
	case !o.readOnly:
		if s.f, err = dir.Create(stateName, fileMode); err == nil {
			err = dir.Sync()
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("vault: create state: %w", err)
		}
	}
	if err := s.load(o); err != nil {
		s.close()
		return nil, fmt.Errorf("vault: open state: %w", err)
	}
	return s, nil
}

func (s *state) close() {
	if s.f != nil {
		s.f.Close()
	}
}

// load takes the better slot, or rebuilds.
func (s *state) load(o stateOptions) error {
	best, broken, err := s.readSlots()
	switch {
	case err != nil && !(o.recover && errors.Is(err, ErrState)):
		return err
	case best == nil || err != nil:
		if err := s.rebuild(o, errors.Join(broken, err)); err != nil {
			return err
		}
	default:
		s.cur = *best
		if err := s.believe(o, broken); err != nil {
			return err
		}
	}
	if s.cur.roCompat != 0 && !s.readOnly {
		return fmt.Errorf("state ro-compat features %#x: %w", s.cur.roCompat, ErrFeature)
	}
	if !s.cur.clean {
		s.pending = s.cur.journal
	}
	s.cur.closeOpen()
	s.next = s.cur.nextLink
	past := slices.Clone(s.cur.sessions)
	s.unclean.Store(&past)
	return nil
}

// readSlots returns the valid slot with the higher sequence, nil where there is none. broken says why a slot that was written
// once is of no use; err is what neither the other slot nor a rebuild may pass over in silence.
func (s *state) readSlots() (best *stateSlot, broken, err error) {
	if s.f == nil {
		return nil, nil, nil
	}
	key := s.ring.State()
	defer clear(key)
	var unreadable error
	for i := range stateSlots {
		b := new([slotSize]byte)
		slot, err := (*stateSlot)(nil), error(nil)
		if n, rerr := s.f.ReadAt(b[:], int64(i)*slotSize); rerr != nil && !errors.Is(rerr, io.EOF) {
			err = fmt.Errorf("%w: %w", errSlotRead, rerr)
			unreadable = err
		} else {
			clear(b[n:])
			slot, err = decodeSlot(b, key, s.ring.VaultID)
		}
		switch {
		case err == nil:
			if best == nil || slot.sequence > best.sequence {
				best, s.slot = slot, i
			}
		case errors.Is(err, errSlotEmpty):
		case errors.Is(err, errSlotTorn), errors.Is(err, errSlotRead):
			broken = errors.Join(broken, err)
		default:
			return nil, broken, err
		}
	}
	if best == nil && unreadable != nil {
		return nil, broken, unreadable // the host may be able to read it tomorrow
	}
	return best, broken, nil
}

// checkIdentity finds a copied vault: fine when clean, and then the copy's own inode takes its place with the next write.
func (s *state) checkIdentity(o stateOptions) error {
	inode, birth, err := identity(s.f)
	if err != nil {
		return err
	}
	same := inode == s.cur.inode && (birth == s.cur.birth || birth == 0 || s.cur.birth == 0)
	if !same && !s.cur.clean {
		if !o.recover {
			return ErrCopied
		}
		o.events.Emit(event.Event{Kind: event.Info, Object: stateName, Offset: -1, Note: "opened a copy of a vault that was not closed cleanly, as asked for"})
	}
	s.cur.inode, s.cur.birth = inode, birth
	return nil
}

// begin opens a session for writing, with a journal id of its own: durable before anything else of it is. start is in ns since 1970 by the host's
// clock. The pending journal is replayed and gone.
func (s *state) begin(start int64) error {
	s.mu.Lock() // names are read on a frozen vault, too
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.next > lastLink {
		return ErrExhausted
	}
	rand.Read(s.journal[:]) // does not fail: without randomness the process ends
	s.first = s.next
	n := s.cur
	n.journal = s.journal
	n.sessions = append(slices.Clone(mergeSessions(n.sessions, maxSessions-1)), session{start: start, first: s.next})
	n.clean = false
	n.nextLink = s.next + reserveBlock
	return s.put(n)
}

// put is write, and of both slots where the state was rebuilt: an inauthentic one must not be met again, nor one with a higher sequence win.
func (s *state) put(n stateSlot) error {
	if s.rebuilt {
		if err := s.f.Truncate(stateSize); err != nil {
			return fmt.Errorf("vault: write state: %w", err)
		}
		if err := s.write(n); err != nil {
			return err
		}
		s.rebuilt = false
	}
	return s.write(n)
}

// end closes the session cleanly: its interval goes, those of earlier sessions stay. No call may follow. A session whose state
// could not be written stays open on the host.
func (s *state) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.pauseLocked()
	_ = s.failLocked(errors.Join(ErrClosed, err))
	return err
}

// pause is end for a session after which begin begins another one.
func (s *state) pause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failLocked(s.pauseLocked())
}

// fail makes err the sticky error, where there is none yet: no link sequence is drawn any more, and nothing is written.
func (s *state) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failLocked(err)
}

func (s *state) failLocked(err error) error {
	if s.err == nil {
		s.err = err
	}
	return err
}

func (s *state) pauseLocked() error {
	for s.writing {
		s.cond.Wait()
	}
	if s.err != nil || s.cur.clean { // which it is between two sessions
		return s.err
	}
	n := s.cur
	n.sessions = slices.Clone(n.sessions[:len(n.sessions)-1])
	n.clean, n.journal = true, [16]byte{}
	n.nextLink = s.next // what was reserved and not issued is given back
	return s.write(n)
}

// abandon stops the session and leaves it open on the host, as a crash would. No call may follow.
func (s *state) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing {
		s.cond.Wait()
	}
	_ = s.failLocked(ErrClosed)
}

// write puts n into the older slot and makes it durable; then it is cur. The caller has mu, or writing, or the state alone.
func (s *state) write(n stateSlot) error {
	n.sequence = s.cur.sequence + 1
	key := s.ring.State()
	b := n.encode(key)
	clear(key)
	slot := 1 - s.slot
	if _, err := s.f.WriteAt(b[:], int64(slot)*slotSize); err != nil {
		return fmt.Errorf("vault: write state: %w", err)
	}
	if err := s.f.Datasync(); err != nil {
		return fmt.Errorf("vault: write state: %w", err)
	}
	s.cur, s.slot = n, slot
	return nil
}
