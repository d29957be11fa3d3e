package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cofferfs/coffer/container/plain"
)

// Bytes read at a time: enough that all cores have frames to work on, and few enough that they are in the processor's cache still when they are written. With 4 MiB
// copying takes up to three times the processor time where others work, too. And the least that is tried where reading fails.
const (
	unit  = 512 << 10
	least = 4 << 10
	ahead = 64 << 20 // how far is looked for the end of the data
)

// span is a range of bytes.
type span struct{ from, to int64 }

// copier copies the contents of one file.
type copier struct {
	ctx     context.Context
	salvage func(err error) bool // says that an error means lost bytes, and that the copy goes on without them
	stats   *counters
	lost    []span
}

// piece is data on its way from the reader to the writer, and the buffer to give back when it is written.
type piece struct {
	data []byte
	at   int64
	back []byte
}

// copy writes all data of src from an offset on to dst, which has nothing there, at its place, with holes where src has some. Reading goes on while writing. points may
// be nil.
func (c *copier) copy(dst *os.File, src plain.File, from int64, points *checkpoints) error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	free, full := make(chan []byte, 2), make(chan piece, 2)
	free <- make([]byte, min(unit, max(src.Size(), 1)))
	if src.Size() > unit {
		free <- make([]byte, unit)
	}
	failed := make(chan error, 1)
	go func() {
		defer close(full)
		failed <- c.read(ctx, src, from, free, full)
	}()
	var err error
	for p := range full {
		if err == nil && p.data != nil {
			if err = c.write(dst, p, points); err != nil {
				cancel()
			}
		}
		if p.back != nil {
			free <- p.back
		}
	}
	if rerr := <-failed; err == nil {
		err = rerr
	}
	if perr := points.wait(); err == nil {
		err = perr
	}
	return err
}

func (c *copier) write(dst *os.File, p piece, points *checkpoints) error {
	if err := points.at(p.at); err != nil {
		return err
	}
	start := time.Now()
	_, err := dst.WriteAt(p.data, p.at)
	c.stats.writing.Add(int64(time.Since(start)))
	if err != nil {
		return err
	}
	points.wrote(len(p.data))
	c.stats.bytes.Add(int64(len(p.data)))
	return nil
}

// read sends the data of src piece by piece.
func (c *copier) read(ctx context.Context, src plain.File, at int64, free chan []byte, full chan<- piece) error {
	for at < src.Size() {
		from, to, err := c.data(src, at)
		if err != nil {
			return err
		}
		c.stats.done.Add(from - at)
		for at = from; at < to; {
			var buf []byte
			select {
			case <-ctx.Done():
				return ctx.Err()
			case buf = <-free:
			}
			n := int(min(int64(len(buf)), to-at))
			if err := c.piece(src, buf[:n], at, full); err != nil {
				return err
			}
			full <- piece{back: buf}
			at += int64(n)
			c.stats.done.Add(int64(n))
		}
		at = to
	}
	return nil
}

// data returns the next range with data; an empty one at the end where none follows. Where damage keeps that from being known, all is taken for data.
func (c *copier) data(src plain.File, at int64) (from, to int64, err error) {
	from, ok, err := src.NextData(at)
	if err == nil && !ok {
		return src.Size(), src.Size(), nil
	}
	if err == nil {
		to, err = src.NextHole(from, min(src.Size(), from+ahead))
	}
	if err != nil && c.salvage(err) {
		return at, min(src.Size(), at+unit), nil
	}
	return from, min(to, src.Size()), err
}

// piece reads one piece and sends it; where bytes of it are lost, what is around them.
func (c *copier) piece(src plain.File, p []byte, at int64, full chan<- piece) error {
	start := time.Now()
	n, err := src.ReadAt(p, at)
	c.stats.reading.Add(int64(time.Since(start)))
	switch {
	case n == len(p):
		full <- piece{data: p, at: at}
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("at byte %d: %w: it became shorter while it was read", at+int64(n), io.ErrUnexpectedEOF)
	case !c.salvage(err):
		return err
	case len(p) <= least:
		c.lose(at, at+int64(len(p)))
		return nil
	}
	half := (len(p)/2 + least - 1) / least * least
	if err := c.piece(src, p[:half], at, full); err != nil {
		return err
	}
	return c.piece(src, p[half:], at+int64(half), full)
}

func (c *copier) lose(from, to int64) {
	if n := len(c.lost); n > 0 && c.lost[n-1].to == from {
		c.lost[n-1].to = to
		return
	}
	c.lost = append(c.lost, span{from, to})
}

// same reports whether dst has the contents of src, which is read and verified for it.
func same(ctx context.Context, dst io.ReaderAt, src plain.File) (bool, error) {
	a, b := make([]byte, min(unit, max(1, src.Size()))), make([]byte, min(unit, max(1, src.Size())))
	for at := int64(0); at < src.Size(); {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n := int(min(int64(len(a)), src.Size()-at))
		if k, err := src.ReadAt(a[:n], at); k < n {
			return false, err
		}
		if k, err := dst.ReadAt(b[:n], at); k < n {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return false, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return false, nil
		}
		at += int64(n)
	}
	return true, nil
}
