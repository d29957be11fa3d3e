package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// Reader is a journal that was left behind. Not for concurrent use.
type Reader struct {
	c        Config
	names    []string  // of all pieces in the directory, this journal's or not
	pieces   []*source // this journal's, by sequence
	doubles  []*source // of two of one sequence, the one that holds less; with Config.Salvage only
	run      []*source // those that hold what is to be replayed
	recycled LSN       // given up, as stated last
	gap      LSN       // where the run ends, or recycled where that is beyond
	torn     bool
	lost     bool
	cut      bool

	sealer sealer
	window window
	head   []byte // of the record that is being verified
}

// source is one piece that is being read.
type source struct {
	name   string
	f      disk.File
	header header
	place  int
	cut    bool // the file is shorter than a piece, which no crash makes it (J1)
	end    LSN  // of the last good record
	chain  chain
}

// Open finds the pieces of the vault's journal ID and verifies every record in them. No piece at all is an empty log. It writes nothing; pieces of other journals
// are ignored with an event. Config.Size, Pressed and Events may be zero. Errors: those of the host (nothing was concluded, try again), ErrVersion, ErrPieces.
func Open(c Config) (*Reader, error) {
	r := &Reader{c: c, sealer: sealer{mac: c.MAC()}}
	err := r.findPieces()
	if err == nil && len(r.pieces) > 0 {
		r.window.buf = make([]byte, windowSize)
		err = r.verify()
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("journal: open: %w", err)
	}
	return r, nil
}

// Pieces is how many pieces of this journal there are. Without any the log is empty.
func (r *Reader) Pieces() int { return len(r.pieces) }

// Close closes the pieces; they stay.
func (r *Reader) Close() {
	for _, s := range append(r.pieces, r.doubles...) {
		s.f.Close()
	}
	r.pieces, r.run, r.doubles = nil, nil, nil
}

// SyncAll makes the pieces durable as they read: after the death of a process they may still be page cache. Call it before anything is written that
// relies on the journal.
func (r *Reader) SyncAll() error {
	for _, s := range r.pieces {
		if err := s.f.Datasync(); err != nil {
			return fmt.Errorf("journal: sync: %w", err)
		}
	}
	return nil
}

// Remove removes all pieces in the directory, those of other journals included, and closes the reader; call it when everything that Each delivers
// is durable in its place. After an error, and after a cut at any instant, the log reads as before or as empty, never as a part of it (J5).
func (r *Reader) Remove() error {
	if len(r.names) == 0 {
		return nil
	}
	all := make([]*piece, len(r.names))
	for i, name := range r.names {
		all[i] = &piece{name: name}
	}
	newest := all[0]
	if len(r.pieces) > 0 {
		s := r.pieces[len(r.pieces)-1]
		f, err := r.c.Dir.Open(s.name, disk.ReadWrite)
		if err != nil {
			return fmt.Errorf("journal: remove: %w", err)
		}
		defer f.Close()
		newest = &piece{name: s.name, f: f, header: s.header, place: s.place, used: true}
	}
	if err := removePieces(r.c.Dir, newest, all, r.sealer.mac); err != nil {
		return fmt.Errorf("journal: remove: %w", err)
	}
	r.Close()
	return nil
}

// Names lists what is called like a piece in a directory, whichever journal's, in order.
func Names(dir disk.Dir) (all []string, err error) {
	err = dir.List(func(name string, _ uint64, _ uint8) error {
		if isPieceName(name) {
			all = append(all, name)
		}
		return nil
	})
	slices.Sort(all)
	return all, err
}

// findPieces fills names and pieces.
func (r *Reader) findPieces() (err error) {
	if r.names, err = Names(r.c.Dir); err != nil {
		return err
	}
	for _, name := range r.names {
		if err := r.openPiece(name); err != nil {
			return err
		}
	}
	slices.SortFunc(r.pieces, func(a, b *source) int { return cmp.Compare(a.header.sequence, b.header.sequence) })
	for i := range r.pieces {
		if !r.c.Salvage && i > 0 && r.pieces[i].contradicts(r.pieces[i-1]) {
			return fmt.Errorf("%s and %s: %w", r.pieces[i-1].name, r.pieces[i].name, ErrPieces)
		}
	}
	return nil
}

// contradicts reports whether two pieces that follow one another cannot be of one log.
func (s *source) contradicts(before *source) bool {
	return s.header.sequence == before.header.sequence || s.header.size != before.header.size
}

// openPiece adds the piece of that name unless it is another journal's.
func (r *Reader) openPiece(name string) error {
	f, err := r.c.Dir.Open(name, disk.ReadOnly)
	if errors.Is(err, disk.ErrNotRegular) {
		r.c.Events.Emit(event.Event{Kind: event.Foreign, Object: name, Offset: -1, Err: err, Note: "not a piece of the journal"})
		return nil
	}
	if err != nil {
		return err
	}
	s := &source{name: name, f: f}
	good, state, err := r.readHeaders(s)
	if err == nil && good {
		err = s.measure()
	}
	if err == nil && !good && state == headerTorn {
		var used bool
		used, err = s.used()
		r.cut = r.cut || used
	}
	if err != nil || !good {
		f.Close()
	} else {
		r.pieces = append(r.pieces, s)
	}
	switch {
	case err != nil:
		return err
	case state == headerForged:
		r.c.Events.Emit(event.Event{Kind: event.Damage, Object: name, Offset: -1, Err: ErrMalformed, Note: "a header of this journal that is not authentic"})
	case !good:
		r.c.Events.Emit(event.Event{Kind: event.Info, Object: name, Offset: -1, Note: "a piece of another journal, or one that was never used, is ignored"})
	}
	return nil
}

// readHeaders takes the newer of the two headers of a piece. What the older one says was given up still holds. bad is the worst that stands there.
func (r *Reader) readHeaders(s *source) (good bool, bad headerState, err error) {
	for place := range headerPlaces {
		var b [sector]byte
		if n, err := s.f.ReadAt(b[:], int64(place)*headerStep); errors.Is(err, io.EOF) {
			if !allZero(b[:n]) {
				bad = max(bad, headerTorn)
			}
			continue
		} else if err != nil {
			return false, bad, err
		}
		h, state := decodeHeader(&b, r.sealer.mac, r.c.Vault, r.c.ID)
		switch state {
		case headerUnknown:
			return false, bad, fmt.Errorf("%s: %w", s.name, ErrVersion)
		case headerForged, headerTorn:
			bad = max(bad, state)
		case headerGood:
			r.recycled = max(r.recycled, h.recycled)
			if !good || h.sequence > s.header.sequence || h.sequence == s.header.sequence && h.recycled > s.header.recycled {
				s.header, s.place = *h, place
			}
			good = true
		}
	}
	return good, bad, nil
}
