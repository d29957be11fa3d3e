package container

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// OpenOptions say how a container is opened.
type OpenOptions struct {
	ReadOnly bool
	// MayLackHeader: an unclean session may have left no valid header; the file is then a new, empty container.
	MayLackHeader bool
	// TrustLength: no unclean session touched the file, so host length and plain size must agree. Otherwise the length is put
	// right (unless ReadOnly).
	TrustLength bool
	// Length of the host file, where the caller has just seen it; 0: it is asked.
	Length int64
	// Young: the running session gave the file its name, so that it may have been made in it and never been synced.
	Young bool
	// Object is the type that the name promises: ObjectFile where zero.
	Object uint8
	// Emptied: the caller truncates the file to nothing. Where it is damaged, what it held is lost anyway: a new, empty container takes
	// its place with the next Flush. One of an unknown version or feature is no damage, and refused as ever.
	Emptied bool
}

// Create makes a new empty container in an empty host file. Nothing is written before Flush. The engine owns h from here on.
func (e *Engine) Create(h disk.File, id keys.ObjectID, object uint8) (*File, error) {
	f := &File{hdr: header{
		suite: suite.ID(e.params.Suite), digest: DigestAlg(e.params.Digest), geo: e.geo, epoch: e.params.Epoch,
		vault: e.ring.VaultID, id: id, object: object,
	}}
	k := e.ring.File(id, e.params)
	f.hdr.commitment = k.Commitment
	if err := f.ready(e, h, &k); err != nil {
		return nil, err
	}
	f.headerDirty = true
	f.virgin = true
	return f, nil
}

// Open opens the container of an object and verifies its header. It takes h over; on an error h is closed. Errors to test for:
// ErrNoHeader, ErrCorrupt, ErrVersion, ErrFeature, ErrKey, ErrAuth, ErrIdentity, ErrSize.
func (e *Engine) Open(h disk.File, id keys.ObjectID, opt OpenOptions) (*File, error) {
	h = e.view.Wrap(id, h)
	if e.view != nil {
		opt.Length = 0 // it may show another
	}
	f, err := e.open(h, id, opt)
	if err != nil {
		h.Close()
		return nil, err
	}
	return f, nil
}

func (e *Engine) open(h disk.File, id keys.ObjectID, opt OpenOptions) (*File, error) {
	if opt.Object == 0 {
		opt.Object = ObjectFile
	}
	f, err := e.openHeader(h, id, opt)
	switch {
	case err == nil:
		return f, nil
	case opt.MayLackHeader && Headerless(err):
		return e.replace(h, id, opt, err, "unclean session left no header: an empty file")
	case opt.Emptied && !opt.ReadOnly && replaceable(err):
		return e.replace(h, id, opt, err, "a damaged file was truncated to nothing")
	}
	return nil, err
}

// openHeader makes a File of what the host file holds.
func (e *Engine) openHeader(h disk.File, id keys.ObjectID, opt OpenOptions) (*File, error) {
	f := new(File)
	hdr := &f.hdr
	k, err := e.readHeader(h, id, hdr)
	if err == nil && hdr.object != opt.Object {
		err = fmt.Errorf("object type %d under a name of type %d: %w", hdr.object, opt.Object, ErrIdentity)
	}
	if err != nil {
		return nil, &MetaError{Op: "open", Level: headerLevel, Err: err}
	}
	if err := f.ready(e, h, k); err != nil {
		return nil, err
	}
	f.readOnly = opt.ReadOnly || hdr.readOnly
	f.durable = hdr.durable || !opt.Young
	f.held = !opt.Young // one whose data is in its header is durable by that alone, once it is on the disk
	if e.applier != nil {
		f.lsn = e.applier.lastOf(id)
	}
	if err := f.checkLength(opt); err != nil || hdr.durable || !opt.MayLackHeader {
		return f, err
	}
	return f, f.salvage()
}

// replace makes an empty container where none could be opened because of why.
func (e *Engine) replace(h disk.File, id keys.ObjectID, opt OpenOptions, why error, note string) (*File, error) {
	var st unix.Stat_t
	if err := h.Stat(&st); err != nil {
		return nil, err
	}
	f, err := e.Create(h, id, opt.Object)
	if err != nil {
		return nil, err
	}
	f.readOnly, f.headerDirty = opt.ReadOnly, !opt.ReadOnly
	f.virgin, f.durable, f.held = false, true, true // there is nothing below that could be lost
	f.hostLen = st.Size                             // whatever it is, the first Flush puts it right
	if e.applier != nil && !opt.ReadOnly {
		f.cutTo(BlockSize, st.Size) // the journal may hold images of what it was
	}
	e.events.Emit(event.Event{Kind: event.Repaired, Object: id.String(), Offset: -1, Err: why, Note: note})
	return f, nil
}

// replaceable reports whether err, an error of Open, says that a container is damaged for good. What the host could not read may be readable tomorrow, and
// what a newer version wrote is not damaged.
func replaceable(err error) bool {
	for _, class := range []error{ErrNoHeader, ErrCorrupt, ErrTruncated, ErrKey, ErrAuth, ErrIdentity, ErrSize} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// Headerless reports whether err, an error of Open, is what a crash leaves that kept a header from being written whole.
func Headerless(err error) bool {
	return errors.Is(err, ErrNoHeader) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTruncated)
}

// ReadSize returns the sealed plain size of a container without opening it further. One that may lack its header, and does, is empty. The errors are those of Open.
func (e *Engine) ReadSize(h disk.File, id keys.ObjectID, mayLackHeader bool) (int64, error) {
	var hdr header
	_, err := e.readHeader(e.view.Wrap(id, h), id, &hdr)
	if mayLackHeader && Headerless(err) {
		return 0, nil
	}
	if err != nil {
		return 0, &MetaError{Op: "read", Level: headerLevel, Err: err}
	}
	return hdr.size, nil
}

// LacksHeader reports whether a host file that may lack its header does (FORMAT.md sections 8.1 and 8.2). One that cannot be read does not.
func (e *Engine) LacksHeader(d disk.Dir, host string, id keys.ObjectID) bool {
	f, err := d.Open(host, disk.ReadOnly)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = e.ReadSize(f, id, false)
	return Headerless(err)
}

// Show puts in what a View says of a host file that is not open.
func (e *Engine) Show(id keys.ObjectID, st *unix.Stat_t) { e.view.Stat(id, st) }

// readHeader reads and verifies the first block, into hdr.
func (e *Engine) readHeader(h disk.File, id keys.ObjectID, hdr *header) (*keys.FileKeys, error) {
	b := e.headerBlock()
	defer e.headers.Put(b)
	if err := hdr.parseFirst(h, b); err != nil {
		return nil, err
	}
	k := e.ring.File(hdr.id, hdr.params())
	if err := hdr.verify(b, e.ring.VaultID, id, &k); err != nil {
		return nil, err
	}
	return &k, nil
}

// clearBlock is headerBlock, cleared: for the record of a file of one segment, while that is open.
func (e *Engine) clearBlock() *block {
	b := e.headerBlock()
	*b = block{}
	return b
}

// headerBlock answers a block for a header as the host has it, which goes back to headers: it holds no secret.
func (e *Engine) headerBlock() *block {
	if b, ok := e.headers.Get().(*block); ok {
		return b
	}
	return new(block)
}

// parseFirst reads the first block of a host file into b and decodes it; nothing is verified yet.
func (h *header) parseFirst(f disk.File, b *block) error {
	if n, err := f.ReadAt(b[:], 0); err != nil {
		if !errors.Is(err, io.EOF) {
			return err
		}
		if allZero(b[:n]) {
			return ErrNoHeader
		}
		return fmt.Errorf("header of %d bytes: %w", n, ErrTruncated)
	}
	return h.parse(b)
}

// Identify reads the header of a container of unknown origin and returns which vault it belongs to and its parameters, if it was
// sealed under mk; else ErrKey or another error of Open. It needs no engine: with the recovery key it finds what a lost config said.
func Identify(h disk.File, mk *keys.MasterKey) (keys.VaultID, keys.FileParams, error) {
	var b block
	var hdr header
	if err := hdr.parseFirst(h, &b); err != nil {
		return keys.VaultID{}, keys.FileParams{}, &MetaError{Op: "read", Level: headerLevel, Err: err}
	}
	ring := keys.NewRing(mk, hdr.vault)
	defer ring.Destroy()
	k := ring.File(hdr.id, hdr.params())
	defer k.Destroy()
	if err := hdr.verify(&b, hdr.vault, hdr.id, &k); err != nil {
		return keys.VaultID{}, keys.FileParams{}, &MetaError{Op: "read", Level: headerLevel, Err: err}
	}
	return hdr.vault, hdr.params(), nil
}
