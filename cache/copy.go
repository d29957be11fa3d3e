package cache

import (
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/container"
)

// copyPiece is how much of a copy is carried at a time.
const copyPiece = 1 << 20

// CopyFrom copies n bytes at srcOff of src to dstOff, from cache to cache, as a read and a write would, and returns how many it copied: n, or
// fewer after an error, or when cancel was closed on the way. Bytes of src beyond its end are zeros. Holes of src become holes, as far as
// they cover whole frames here. src may be f itself where the ranges do not overlap. Errors are those of ReadAt, WriteAt and Discard.
func (f *File) CopyFrom(src *File, srcOff, dstOff, n int64, cancel <-chan struct{}) (done int64, err error) {
	if err := errors.Join(src.checkRange(srcOff, n), f.checkRange(dstOff, n)); err != nil {
		return 0, err
	}
	var buf []byte
	if n <= int64(f.frameSize) {
		buf = f.shelf.get()
		defer f.shelf.put(buf)
	} else {
		buf = make([]byte, min(n, copyPiece))
		defer clear(buf)
	}
	for done < n {
		if done > 0 && cancelled(cancel) {
			return done, nil
		}
		off := srcOff + done
		end, stored, err := src.run(off, srcOff+n)
		if err != nil {
			return done, err
		}
		if stored {
			err = f.copyPiece(src, off, dstOff+done, buf[:end-off])
		} else {
			err = errors.Join(f.Discard(dstOff+done, end-off), f.Grow(dstOff+done+end-off))
		}
		if err != nil {
			return done, err
		}
		done += end - off
	}
	return done, nil
}

func cancelled(cancel <-chan struct{}) bool {
	select {
	case <-cancel:
		return true
	default:
		return false
	}
}

// copyPiece copies one piece through buf.
func (f *File) copyPiece(src *File, off, dstOff int64, buf []byte) error {
	n, err := src.ReadAt(buf, off)
	if err != nil {
		return fmt.Errorf("cache: source of a copy: %w", err)
	}
	clear(buf[n:]) // cut meanwhile
	return f.WriteAt(buf, dstOff)
}

// run returns where the data or the hole that begins at off ends, limit at the latest, and for data after copyPiece.
func (f *File) run(off, limit int64) (end int64, stored bool, err error) {
	f.rw.RLock()
	defer f.rw.RUnlock()
	if f.closed {
		return 0, false, container.ErrClosed
	}
	data, err := f.seekData(off)
	switch {
	case errors.Is(err, ErrNoData):
		return limit, false, nil
	case err != nil:
		return 0, false, err
	case data > off:
		return min(data, limit), false, nil
	}
	end, err = f.seekHole(off, min(limit, off+copyPiece, f.Size()))
	return end, true, err
}
