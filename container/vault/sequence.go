package vault

import (
	"slices"
)

// nextSeq returns a link sequence that was never returned before, in no session. It waits for the host only when a block runs
// out before the next one is reserved.
func (s *state) nextSeq() (uint64, error) {
	if s.readOnly {
		return 0, ErrReadOnly
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.err != nil {
			return 0, s.err
		}
		if s.next < s.cur.nextLink {
			n := s.next
			s.next++
			if s.cur.nextLink-s.next < reserveBlock/2 {
				s.reserve()
			}
			return n, nil
		}
		if s.next > lastLink {
			return 0, ErrExhausted
		}
		s.reserve()
		s.cond.Wait()
	}
}

// reserve starts to reserve the next block, unless that is under way. The numbers of a block are issued only once its
// reservation is durable, so that no crash issues one twice. The caller has mu.
func (s *state) reserve() {
	if s.writing || s.err != nil || s.next > lastLink {
		return
	}
	s.writing = true
	// Nobody else changes cur, slot and the file while writing is set.
	n := s.cur
	n.nextLink = min(max(n.nextLink, s.next), lastLink) + reserveBlock
	go func() {
		w := state{f: s.f, ring: s.ring, cur: s.cur, slot: s.slot}
		err := w.write(n)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.writing = false
		if err != nil {
			s.err = err
		} else {
			s.cur, s.slot = w.cur, w.slot
		}
		s.cond.Broadcast()
	}()
}

// sawSeq makes sure that no link sequence up to seq is issued any more. No I/O.
func (s *state) sawSeq(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq < s.next {
		return
	}
	from := s.next
	s.next = max(s.next, min(seq, lastLink)+1)
	if k := len(s.skipped) - 1; k >= 0 && s.skipped[k].end == from {
		s.skipped[k].end = s.next
	} else {
		s.skipped = append(s.skipped, session{first: from, end: s.next})
	}
}

// inSession tells whether seq was drawn in the running session.
func (s *state) inSession(seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readOnly || seq < s.first || seq >= s.next {
		return false
	}
	k, _ := slices.BinarySearchFunc(s.skipped, seq, func(x session, seq uint64) int {
		if x.end <= seq {
			return -1
		}
		return 1
	})
	return k == len(s.skipped) || seq < s.skipped[k].first
}

// uncleanTime tells whether an unclean session of the past began at or before t, in ns since 1970.
func (s *state) uncleanTime(t int64) bool {
	for _, x := range *s.unclean.Load() {
		if x.start <= t {
			return true
		}
	}
	return false
}

// uncleanSeq tells whether an unclean session of the past may have issued seq.
func (s *state) uncleanSeq(seq uint64) bool {
	for _, x := range *s.unclean.Load() {
		if x.first <= seq && seq < x.end {
			return true
		}
	}
	return false
}
