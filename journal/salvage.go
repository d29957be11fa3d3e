package journal

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// IDs answers the journals that have pieces with an authentic header in c.Dir; c.ID does not count. It is for a vault whose state, which named the journal, is
// lost. Errors are the host's, and ErrVersion.
func IDs(c Config) (all [][16]byte, err error) {
	list, err := Names(c.Dir)
	if err != nil {
		return nil, err
	}
	mac := c.MAC()
	for _, name := range list {
		f, err := c.Dir.Open(name, disk.ReadOnly)
		if errors.Is(err, disk.ErrNotRegular) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for place := range headerPlaces {
			var b [sector]byte
			if _, err = f.ReadAt(b[:], int64(place)*headerStep); errors.Is(err, io.EOF) {
				err = nil
				continue
			} else if err != nil {
				break
			}
			id := [16]byte(b[32:])
			_, state := decodeHeader(&b, mac, c.Vault, id)
			if state == headerUnknown {
				err = fmt.Errorf("%s: %w", name, ErrVersion)
				break
			}
			if state == headerGood && !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// measure finds a piece that was cut.
func (s *source) measure() error {
	_, err := s.f.ReadAt(make([]byte, 1), s.header.size-1)
	if s.cut = errors.Is(err, io.EOF); s.cut {
		return nil
	}
	return err
}

// used reports whether anything stands where the first record of a piece does. A piece without a header and without that was being made when the power failed.
func (s *source) used() (bool, error) {
	var b [sector]byte
	n, err := s.f.ReadAt(b[:], pieceHeader)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return !allZero(b[:n]), err
}

// Behind calls fn with the heads of transactions that are authentic and lie behind the end of the log, so that Each does not deliver them: whole ones, as far as
// they can be found. head is valid during the call only. Errors are the host's.
func (r *Reader) Behind(fn func(head []byte)) error {
	for _, s := range r.pieces {
		if s.header.limit() <= r.gap {
			continue
		}
		prev, known := s.header.chain, true // of the record before pos
		var head []byte
		open := false
		for pos := s.header.start(); pos < s.header.limit(); {
			rec, part, good, err := r.peekRecord(s, pos, &prev)
			if err != nil {
				return err
			}
			if rec.mac == (chain{}) {
				pos, known, open = pos+sector, false, false
				continue
			}
			authentic := good && known
			prev, known = rec.mac, true // as a header with a good CRC states it; what follows proves it
			if pos = rec.end(); pos <= r.gap || !authentic {
				open = false
				continue
			}
			if rec.has(flagFirst) {
				head, open = head[:0], true
			}
			head = append(head, part...)
			if open && rec.has(flagCommit) {
				fn(head)
				open = false
			}
		}
	}
	return nil
}

// peekRecord reads a record without its bulk. good says that its MAC is right; a record without one is none.
func (r *Reader) peekRecord(s *source, pos LSN, prev *chain) (rec record, head []byte, good bool, err error) {
	off := s.header.offset(pos)
	b, err := r.window.at(s.f, off, recordHeader)
	if err != nil {
		return record{}, nil, false, err
	}
	rec, ok := decodeRecord(b, &r.c.ID, pos, s.header.limit())
	if !ok {
		return record{}, nil, false, nil
	}
	r.sealer.begin(prev, b)
	head = make([]byte, rec.head)
	if _, err := s.f.ReadAt(head, off+recordHeader); err != nil && !errors.Is(err, io.EOF) {
		return record{}, nil, false, err
	}
	r.sealer.mac.Write(head)
	mac := r.sealer.end()
	return rec, head, hmac.Equal(mac[:], rec.mac[:]), nil
}

// lostDir in the journal's directory takes the pieces of a journal that was damaged.
const lostDir = "lost"

// SetAside is Remove for a journal whose pieces are to be kept: they have names in the directory "lost" first, in which nobody looks for a journal. It can be
// repeated after an error or a cut.
func (r *Reader) SetAside() error {
	if err := r.c.Dir.Mkdir(lostDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("journal: set aside: %w", err)
	}
	to, err := r.c.Dir.OpenDir(lostDir)
	if err != nil {
		return fmt.Errorf("journal: set aside: %w", err)
	}
	defer to.Close()
	for _, name := range r.names {
		if err := linkAside(r.c.Dir, name, to); err != nil {
			return fmt.Errorf("journal: set aside: %w", err)
		}
	}
	if err := errors.Join(to.Sync(), r.c.Dir.Sync()); err != nil {
		return fmt.Errorf("journal: set aside: %w", err)
	}
	return r.Remove()
}

// linkAside gives a piece a name in to, which has it already or not.
func linkAside(from disk.Dir, name string, to disk.Dir) error {
	var st, there unix.Stat_t
	if err := from.Stat(name, &st); err != nil {
		return err
	}
	for n := 0; ; n++ {
		as := name
		if n > 0 {
			as = fmt.Sprintf("%s.%d", name, n)
		}
		err := from.Link(name, to, as)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := to.Stat(as, &there); err == nil && there.Dev == st.Dev && there.Ino == st.Ino {
			return nil
		}
	}
}
