package journal

import (
	"errors"
	"hash"
	"syscall"

	"github.com/cofferfs/coffer/internal/disk"
)

// piece is one host file of the ring.
type piece struct {
	name    string
	f       disk.File
	direct  disk.Direct // the same for what is to be durable at once; nil where the host has none
	noAhead bool        // of direct, only WriteAt can be had
	begun   []byte      // what flies, at begunAt of the file
	begunAt int64
	header  header // what it is used for
	place   int    // where the newest header stands
	used    bool   // header stands on the disk
}

// zeros is what new pieces are written with.
var zeros [256 << 10]byte

// makePiece makes a file of zeros and makes it durable, with its name (J1). A file in its place is of an older journal and is replaced. After an error
// there is no file.
func makePiece(dir disk.Dir, name string, size int64) (*piece, error) {
	f, err := dir.Create(name, 0o600)
	if errors.Is(err, syscall.EEXIST) {
		if err = dir.Unlink(name); err == nil {
			f, err = dir.Create(name, 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	// A full host says so at once, before zeros take the room that others need.
	if err = f.Allocate(0, size); errors.Is(err, syscall.EOPNOTSUPP) {
		err = nil
	}
	for off := int64(0); off < size && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = dir.Sync()
	}
	if err != nil {
		f.Close()
		_ = dir.Unlink(name) // what stays has no header: it is nobody's
		return nil, err
	}
	p := &piece{name: name, f: f, place: headerPlaces - 1}
	if direct, err := dir.OpenDirect(name); err == nil { // else it does without
		p.direct = direct
	}
	return p, nil
}

// close frees the descriptors.
func (p *piece) close() {
	_ = p.f.Close()
	p.noDirect()
}

// writeDirect writes b durably where the host can; else it does nothing, and never again. b is from disk.DirectBuffer.
func (p *piece) writeDirect(b []byte, off int64) (done bool, err error) {
	_, err = p.direct.WriteAt(b, off)
	if cannot(err) {
		p.noDirect()
		return false, nil
	}
	return err == nil, err
}

// begin begins writeDirect where the host can; else it does nothing, and never again.
func (p *piece) begin(b []byte, off int64) (begun bool, err error) {
	if p.noAhead {
		return false, nil
	}
	err = p.direct.Begin(b, off)
	if cannot(err) {
		p.noAhead = true // writeDirect says whether it is that alone
		return false, nil
	}
	p.begun, p.begunAt = b, off
	return err == nil, err
}

// end waits for what begin began, and answers whether that is durable. A host may say only now that it cannot do it: then it goes the way of Sync.
func (p *piece) end() error {
	err := p.direct.End()
	if cannot(err) {
		p.noDirect()
		if _, err = p.f.WriteAt(p.begun, p.begunAt); err == nil {
			err = p.f.Datasync()
		}
	}
	p.begun = nil
	return err
}

// start has the host begin to write these bytes of the log, which are in its page cache alone, where it can do that by itself: Sync then finds it done, and need
// not wait as long.
func (p *piece) start(from, end LSN) {
	if s, ok := p.f.(interface{ Start(off, n int64) }); ok {
		s.Start(p.header.offset(from), int64(end-from))
	}
}

// cannot reports whether err says that the host cannot write past its page cache, or not so.
func cannot(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP)
}

// noDirect has the piece do without.
func (p *piece) noDirect() {
	if p.direct != nil {
		_ = p.direct.Close()
		p.direct = nil
	}
}

// writeHeader makes h the header of the piece, durable when it returns where that is asked for (J2). The one before stays beside it.
func (p *piece) writeHeader(h *header, mac hash.Hash, durable bool) error {
	place := (p.place + 1) % headerPlaces
	if _, err := p.f.WriteAt(h.encode(mac)[:], int64(place)*headerStep); err != nil {
		return err
	}
	if durable {
		if err := p.f.Datasync(); err != nil {
			return err
		}
	}
	p.header, p.place, p.used = *h, place, true
	return nil
}

// removePieces removes all pieces of a journal whose transactions are all done with (J5). newest is one of them, open for writing.
func removePieces(dir disk.Dir, newest *piece, all []*piece, mac hash.Hash) error {
	if newest.used {
		h := newest.header
		h.recycled = h.limit()
		if err := newest.writeHeader(&h, mac, true); err != nil {
			return err
		}
	}
	unlink := func(name string) error {
		if err := dir.Unlink(name); err != nil && !errors.Is(err, syscall.ENOENT) {
			return err
		}
		return nil
	}
	others := 0
	for _, p := range all {
		if p.name == newest.name {
			continue
		}
		others++
		if err := unlink(p.name); err != nil {
			return err
		}
	}
	if others > 0 {
		if err := dir.Sync(); err != nil {
			return err
		}
	}
	if err := unlink(newest.name); err != nil {
		return err
	}
	return dir.Sync()
}
