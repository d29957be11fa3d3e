package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/vault"
)

// ReadOptions of a Reader or ReaderAt. Zero values: vault.DeriveInProcess, as many workers as processors.
type ReadOptions struct {
	Derive  vault.Deriver
	Workers int
	// Ask is called where no secret is given, with the kinds of key slots that the stream has (vault.KindPassphrase, …), once its header is read: nobody
	// should have to type a passphrase for something that is no stream, or has none.
	Ask func(kinds []string) (vault.Secret, error)
}

// unlock reads the header of a stream and opens its key slot. It answers what opens the frames, and where they begin.
func (o *ReadOptions) unlock(r io.Reader, secret vault.Secret) (c *container.SegmentCrypto, base int64, err error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, 0, err
	}
	if secret, err = o.secret(secret, h); err != nil {
		return nil, 0, err
	}
	c, err = h.unlock(secret, o.Derive, workers(o.Workers))
	return c, int64(len(h.raw)), err
}

// secret is the one that was given, or asked for.
func (o *ReadOptions) secret(given vault.Secret, h *header) (vault.Secret, error) {
	if given != nil || o.Ask == nil {
		return given, nil
	}
	var has []string
	for i := range h.slots {
		if !slices.Contains(has, h.slots[i].Kind) {
			has = append(has, h.slots[i].Kind)
		}
	}
	return o.Ask(has)
}

// Reader opens a stream from its beginning to its end. What it returns is authentic and in its place; that nothing is missing is certain with io.EOF only.
// Not for concurrent use. Close it where it is not read to its end.
type Reader struct {
	crypto *container.SegmentCrypto
	base   int64 // length of the header
	cancel context.CancelFunc
	out    chan Result[container.DecryptedSegment]
	flight chan []byte // wire form of the segments under way, in order
	wire   chan []byte // free buffers
	plain  chan []byte
	source source

	cur    []byte // what is left of the segment that was opened last
	buf    []byte // all of it
	index  uint64 // of the next segment
	final  bool   // the last segment was seen
	err    error  // it stays
	mu     sync.Mutex
	totals Totals        // guarded by mu
	done   chan struct{} // closed when the workers have ended
}

// source is how the input ended. It is written before Reader.out is closed and read after.
type source struct {
	length int64 // of the whole input, header included
	err    error // what reading it failed with
}

// NewReader reads the header of a stream and opens its key slot with secret, which may be wiped afterwards. A goroutine of the Reader reads r ahead, until the
// stream ends, fails, or is closed; r stays the caller's.
//
// Errors: *Error with ErrNotStream or a class of package container; vault.ErrPassphrase, ErrKeyFile, ErrIdentity and the other errors of
// vault.Config.UnlockWith; those of r.
func NewReader(r io.Reader, secret vault.Secret, o ReadOptions) (*Reader, error) {
	c, base, err := o.unlock(r, secret)
	if err != nil {
		return nil, err
	}
	return newReader(r, c, base, o.Workers), nil
}

func newReader(r io.Reader, c *container.SegmentCrypto, base int64, n int) *Reader {
	ctx, cancel := context.WithCancel(context.Background())
	most := window(workers(n), c.Geometry()) + 4
	s := &Reader{
		crypto: c, base: base, cancel: cancel, out: make(chan Result[container.DecryptedSegment]),
		flight: make(chan []byte, most), wire: make(chan []byte, most), plain: make(chan []byte, most), source: source{length: base},
		done: make(chan struct{}),
	}
	in := make(chan container.DecryptSegmentInput)
	go func() {
		defer close(in)
		s.feed(ctx, r, in)
	}()
	go func() {
		defer close(s.done)
		totals, _ := (&Decrypter{Crypto: c, Workers: n}).Run(ctx, in, s.out, nil) // its error is that we cancelled it
		s.mu.Lock()
		s.totals = totals
		s.mu.Unlock()
	}()
	return s
}

// feed cuts the input into segments. All but the last have one length, so that no length on the wire is needed, nor believed.
func (s *Reader) feed(ctx context.Context, r io.Reader, in chan<- container.DecryptSegmentInput) {
	size := s.crypto.WireLen(s.crypto.Geometry().SegmentSize)
	for i := uint64(0); ; i++ {
		b := get(s.wire)
		if b == nil {
			b = make([]byte, 0, size)
		}
		n, err := io.ReadFull(r, b[:size])
		s.source.length += int64(n)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			s.source.err = err
			return
		}
		if n > 0 {
			select {
			case <-ctx.Done():
				return
			case s.flight <- b[:n]:
			}
			select {
			case <-ctx.Done():
				return
			case in <- container.DecryptSegmentInput{SegmentIndex: i, Wire: b[:n], Dst: get(s.plain)}:
			}
		}
		if err != nil {
			return
		}
	}
}

// next takes the next segment, checks its place, and sets err at the end.
func (s *Reader) next() {
	if s.buf != nil {
		put(s.plain, s.buf)
		s.buf = nil
	}
	g := s.crypto.Geometry()
	start := s.base + int64(s.index)*int64(s.crypto.WireLen(g.SegmentSize))
	r, more := <-s.out
	switch d := &r.Value; {
	case !more && s.source.err != nil:
		s.end(s.source.err)
	case !more && !s.final:
		s.end(&Error{Offset: s.source.length, Err: fmt.Errorf("the last segment is missing: %w", container.ErrTruncated)})
	case !more:
		s.end(io.EOF)
	case s.final:
		s.end(&Error{Offset: start, Err: fmt.Errorf("behind the last segment: %w", container.ErrTrailing)})
	case r.Err != nil:
		s.end(at(start, r.Err))
	case d.Final && len(d.Plain()) == 0 && s.index > 0:
		s.end(&Error{Offset: start, Err: fmt.Errorf("empty last segment: %w", container.ErrCorrupt)})
	case !d.Final && len(d.Plain()) < g.SegmentSize: // only the end of the input can be that short
		s.end(&Error{Offset: start + int64(s.crypto.WireLen(len(d.Plain()))), Err: fmt.Errorf("the last segment is missing: %w", container.ErrTruncated)})
	default:
		put(s.wire, <-s.flight)
		s.index++
		s.final, s.buf, s.cur = d.Final, d.Plain(), d.Plain()
	}
}

// end stops the workers.
func (s *Reader) end(err error) {
	s.err = err
	s.cancel()
	for range s.out { // what was on its way
	}
	<-s.done
}

// Read returns opened bytes; at the end io.EOF, or an error that says why there is no end: an *Error, or the source's. It stays.
func (s *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.cur) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.next()
	}
	n := copy(p, s.cur)
	s.cur = s.cur[n:]
	return n, nil
}

// WriteTo writes all that is left to w, a segment at a time.
func (s *Reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		for len(s.cur) == 0 {
			if errors.Is(s.err, io.EOF) {
				return n, nil
			}
			if s.err != nil {
				return n, s.err
			}
			s.next()
		}
		k, err := w.Write(s.cur)
		n += int64(k)
		s.cur = s.cur[k:]
		if err != nil {
			return n, err
		}
	}
}

// Close ends the Reader. A Read of the source that is under way ends by itself, with the goroutine that waits for it. Reading on gives ErrClosed.
func (s *Reader) Close() error {
	if s.err == nil {
		s.end(ErrClosed)
	}
	s.cur, s.err = nil, ErrClosed
	return nil
}

// Totals says what was opened; it is whole once Read has answered an error.
func (s *Reader) Totals() Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.totals
}
