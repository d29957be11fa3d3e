package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

// Options of a Writer. A zero field stands for the default: xaes-256-gcm, crc32c, segments of 1 MiB with frames of 32 KiB, as many workers as
// processors. A FrameSize of 0 beside a SegmentSize is chosen by the size table. Sizes are in bytes.
type Options struct {
	Suite       suite.ID
	Digest      container.DigestAlg
	SegmentSize int
	FrameSize   int
	Workers     int
}

// DefaultSegmentSize is the segment size of streams, in bytes.
const DefaultSegmentSize = 1 << 20

func (o Options) params() (keys.FileParams, error) {
	if o.Suite == 0 {
		o.Suite = suite.XAES256GCM
	}
	if o.Digest == 0 {
		o.Digest = container.DefaultDigest
	}
	if o.SegmentSize == 0 && o.FrameSize == 0 {
		o.SegmentSize = DefaultSegmentSize
	}
	g, err := container.GeometryFor(o.SegmentSize, o.FrameSize)
	if err != nil {
		return keys.FileParams{}, fmt.Errorf("stream: %w", err)
	}
	return keys.FileParams{Suite: o.Suite, Digest: uint8(o.Digest), SegmentSize: uint32(g.SegmentSize), FrameSize: uint32(g.FrameSize)}, nil
}

// Writer seals what is written to it. Segments are sealed in parallel and written in order, by a goroutine of the Writer. Not for concurrent use. Close it,
// in any case: a stream without its end is refused by every reader.
type Writer struct {
	geo    *container.Geometry
	cancel context.CancelFunc
	in     chan container.EncryptSegmentInput
	flight chan []byte // plaintext of the segments under way, in order
	plain  chan []byte // free buffers
	wire   chan []byte
	done   chan struct{} // closed when the goroutines have ended

	cur    []byte // the segment that is being filled; a full one waits for what tells that it is not the last
	index  uint64
	closed error // what every call but the first Close answers

	mu     sync.Mutex // guards what follows
	err    error      // the first failure; it stays
	totals Totals
}

// NewWriter writes the header of a new stream, with a fresh key that each of the recipients can unwrap, and returns what writes the rest. w stays the
// caller's and is not closed. Errors: ErrRecipients, container.ErrGeometry, those of package vault, or w's.
func NewWriter(w io.Writer, o Options, to ...Recipient) (*Writer, error) {
	p, err := o.params()
	if err != nil {
		return nil, err
	}
	key := keys.NewMasterKey()
	defer key.Destroy()
	h := &header{id: keys.RandomVaultID(), params: p}
	if h.slots, err = makeSlots(h.id, key, to); err != nil {
		return nil, err
	}
	k := keys.Stream(key, h.id, p)
	defer k.Destroy()
	h.commitment = k.Commitment
	c, err := container.NewSegmentCrypto(h.id, keys.ObjectID{}, p, &k, workers(o.Workers))
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(h.seal(&k.Auth)); err != nil {
		return nil, err
	}
	return newWriter(w, c, o.Workers), nil
}

func newWriter(w io.Writer, c *container.SegmentCrypto, n int) *Writer {
	ctx, cancel := context.WithCancel(context.Background())
	most := window(workers(n), c.Geometry()) + 4
	s := &Writer{
		geo: c.Geometry(), cancel: cancel, in: make(chan container.EncryptSegmentInput), done: make(chan struct{}),
		flight: make(chan []byte, most), plain: make(chan []byte, most), wire: make(chan []byte, most),
	}
	out := make(chan Result[container.EncryptedSegment])
	var wg sync.WaitGroup
	wg.Go(func() {
		totals, err := (&Encrypter{Crypto: c, Workers: n}).Run(ctx, s.in, out, nil)
		s.fail(err)
		s.mu.Lock()
		s.totals = totals
		s.mu.Unlock()
	})
	wg.Go(func() { s.drain(w, out) })
	go func() {
		wg.Wait()
		cancel()
		close(s.done)
	}()
	return s
}

// drain writes the segments to w until the first failure, which ends the workers.
func (s *Writer) drain(w io.Writer, out <-chan Result[container.EncryptedSegment]) {
	failed := false
	for r := range out {
		if failed {
			continue
		}
		err := r.Err
		if err == nil {
			_, err = w.Write(r.Value.Wire)
		}
		if err != nil {
			failed = true
			s.fail(err)
			s.cancel()
			continue
		}
		put(s.plain, <-s.flight)
		put(s.wire, r.Value.Wire)
	}
}

// get takes a free buffer, or nil; put gives one back.
func get(free chan []byte) []byte {
	select {
	case b := <-free:
		return b
	default:
		return nil
	}
}

func put(free chan []byte, b []byte) {
	select {
	case free <- b[:0]:
	default:
	}
}

func (s *Writer) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *Writer) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// buffer returns an empty buffer for one segment.
func (s *Writer) buffer() []byte {
	if b := get(s.plain); b != nil {
		return b
	}
	return make([]byte, 0, s.geo.SegmentSize)
}

// send hands p over to the workers.
func (s *Writer) send(p []byte, final bool) error {
	select {
	case <-s.done:
		return s.stopped()
	case s.flight <- p: // there is room for as many as can be under way
	}
	select {
	case <-s.done:
		return s.stopped()
	case s.in <- container.EncryptSegmentInput{SegmentIndex: s.index, Plaintext: p, Final: final, Dst: get(s.wire)}:
		s.index++
		return nil
	}
}

// stopped is why the workers have ended.
func (s *Writer) stopped() error {
	if err := s.failure(); err != nil {
		return err
	}
	return ErrClosed
}

// Write seals p; it keeps nothing of it. What it answered to may not have been written yet: Close tells. An error of the destination comes with some
// later call, and with all after it.
func (s *Writer) Write(p []byte) (n int, err error) {
	if s.closed != nil {
		return 0, s.closed
	}
	for n < len(p) {
		if s.cur == nil {
			s.cur = s.buffer()
		}
		if len(s.cur) == s.geo.SegmentSize {
			full := s.cur
			s.cur = nil
			if err := s.send(full, false); err != nil {
				return n, s.end(err)
			}
			continue
		}
		k := min(len(p)-n, s.geo.SegmentSize-len(s.cur))
		s.cur = append(s.cur, p[n:n+k]...)
		n += k
	}
	return n, nil
}

// ReadFrom seals all of r, read straight into the buffers of the segments.
func (s *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	if s.closed != nil {
		return 0, s.closed
	}
	for {
		var full []byte
		if len(s.cur) == s.geo.SegmentSize {
			full, s.cur = s.cur, nil
		}
		if s.cur == nil {
			s.cur = s.buffer()
		}
		k, err := r.Read(s.cur[len(s.cur):s.geo.SegmentSize])
		n += int64(k)
		s.cur = s.cur[:len(s.cur)+k]
		switch {
		case full != nil && k == 0:
			put(s.plain, s.cur)
			s.cur = full
		case full != nil:
			if err := s.send(full, false); err != nil {
				return n, s.end(err)
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Close seals what is left as the last segment, waits until everything is written and says whether it is. A second call answers ErrClosed.
func (s *Writer) Close() error {
	if s.closed != nil {
		if errors.Is(s.closed, ErrClosed) {
			return ErrClosed
		}
		return s.end(s.closed)
	}
	err := s.send(s.cur, true)
	if err != nil {
		return s.end(err)
	}
	close(s.in)
	<-s.done
	s.closed, s.cur = ErrClosed, nil
	return s.failure()
}

// Abort ends the Writer without an end of the stream, as after a source that failed: no reader will take it for whole. It may follow anything.
func (s *Writer) Abort() {
	if s.closed == nil {
		_ = s.end(ErrClosed)
	}
}

// end stops the workers and makes err the answer of every later call.
func (s *Writer) end(err error) error {
	s.cancel()
	<-s.done
	s.closed, s.cur = err, nil
	return err
}

// Totals says what was sealed; it is whole after Close.
func (s *Writer) Totals() Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.totals
}
