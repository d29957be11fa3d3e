package container

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Verify looks at everything that the container holds on the host: each tree node and meta block with its pin, each record, and each frame, which it
// opens. Slots that hold nothing are not looked at. It goes on behind damage: a block that is damaged means that the range below it is lost. only says
// which ranges to look at, nil: all. step, which may be nil, is told how many plain bytes were done since.
//
// The container has no changes that are not flushed, and nobody writes to it meanwhile, or what was changed seems lost. An error is that of ctx, or ErrClosed.
func (f *File) Verify(ctx context.Context, only []LostRange, step func(n int64)) (Checked, error) {
	f.commit.Lock()
	defer f.commit.Unlock()
	f.mu.RLock()
	closed, hdr, single, hostLen := f.closed, f.hdr, f.single, f.hostLen
	var pins headerPins
	if f.pins != nil {
		pins = *f.pins
	}
	f.mu.RUnlock()
	if closed {
		return Checked{}, ErrClosed
	}
	v := &survey{host: f.host, pool: f.eng.pool, step: step, only: only}
	v.bodyOf(&hdr)
	v.pins, v.single = &pins, single
	v.block = func(level uint8, index uint64, want pin) (*block, uint64, error) {
		b, err := f.readBlock(level, index, want)
		return b, 0, err
	}
	v.frame = func(s *scratch, h *frameHeader, e entry, ciphertext []byte) ([]byte, error) {
		if len(s.plain) < len(ciphertext) {
			s.plain = make([]byte, f.geo.FrameSize)
		}
		plain, err := f.crypto.openFrame(s, h, e, s.plain, ciphertext)
		clear(plain)
		f.eng.opened.Add(1)
		return nil, err
	}
	err := v.run(ctx)
	v.out.Unsynced = !hdr.durable
	v.out.Length = f.geo.lengthError(hdr.size, hostLen)
	return v.out, err
}

// lengthError compares a host length with that of a plain size.
func (g *Geometry) lengthError(size, have int64) error {
	if want := g.HostLength(size); have != want {
		return fmt.Errorf("host length %d, size %d wants %d: %w", have, size, want, ErrSize)
	}
	return nil
}

// readRaw reads a block from the host and checks nothing.
func readRaw(h io.ReaderAt, addr int64) (*block, error) {
	b := new(block)
	if _, err := h.ReadAt(b[:], addr); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, ErrTruncated
		}
		return nil, err
	}
	return b, nil
}
