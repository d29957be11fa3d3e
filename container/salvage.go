package container

import (
	"errors"
	"fmt"

	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
	"github.com/cofferfs/coffer/journal"
)

// salvage makes a file whole that an unclean session made and that was never synced whole: the power may have gone before the host wrote
// some of its parts. Whatever does not open becomes a hole. It is asked for only where the name says that no header was durable when it was made, and the
// header that not all below was. Errors are the host's.
func (f *File) salvage() error {
	lost := 0
	for group := uint64(0); f.hdr.kind == bodyTree || f.hdr.kind == bodySingle && group == 0; {
		if int64(group)<<f.geo.groupShift >= f.hdr.size {
			break
		}
		b, skip, err := f.lookupSkip(group)
		var meta *MetaError
		switch {
		case errors.As(err, &meta) && unreadable(err):
			if err := f.losePin(meta.Level, meta.Index); err != nil {
				return err
			}
			lost++
			continue
		case err != nil:
			return err
		case b == nil:
			group += skip
			continue
		}
		n, err := f.salvageGroup(group)
		if err != nil {
			return err
		}
		lost += n
		group++
	}
	if lost > 0 {
		f.eng.events.Emit(event.Event{Kind: event.Repaired, Object: f.crypto.id.String(), Offset: -1,
			Note: fmt.Sprintf("%d parts that an unclean session had not synced became holes", lost)})
	}
	if f.readOnly {
		return nil
	}
	// What opens may be in the host's memory only, after a kill.
	if err := f.host.Datasync(); err != nil {
		return err
	}
	f.durable, f.held, f.headerDirty = true, true, true
	if err := f.Sync(); !disk.IsFull(err) && !errors.Is(err, journal.ErrClosed) { // which it is while it is suspended
		return err
	}
	return nil // it can be read; whoever flushes it next tries again
}

// salvageGroup makes holes of the frames of a group that do not open.
func (f *File) salvageGroup(group uint64) (lost int, err error) {
	plain := make([]byte, f.geo.FrameSize)
	defer clear(plain)
	first := group * uint64(f.geo.perGroup)
	for segment := first; segment < first+uint64(f.geo.perGroup); segment++ {
		for i := range f.geo.Frames {
			at := f.geo.frameStart(segment, i)
			if at >= f.geo.MaxSize() {
				return lost, nil
			}
			err := f.ReadAt(plain, at)
			if err == nil {
				continue
			}
			if !unreadable(err) {
				return lost, err
			}
			b, err := f.writable(0, group)
			if err != nil {
				return lost, err
			}
			f.mu.Lock()
			clear(f.recordOf(b, segment).entry(i))
			f.headerDirty = true
			f.mu.Unlock()
			lost++
		}
	}
	return lost, nil
}

// losePin makes a hole of everything below a block that cannot be read.
func (f *File) losePin(level uint8, index uint64) error {
	plevel, pindex, place, header := parentOf(level, index)
	if header {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.pins[place] = pin{}
		f.headerDirty = true
		return nil
	}
	parent, err := f.writable(plevel, pindex)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	parent.setPin(place, pin{})
	return nil
}

// unreadable reports whether stored bytes are not what was sealed, as opposed to a host that failed.
func unreadable(err error) bool {
	return errors.Is(err, ErrAuth) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTruncated)
}
