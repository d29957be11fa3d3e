package journal

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/cofferfs/coffer/internal/event"
)

// askAgain is how long an Append waits for room before it asks for it once more.
const askAgain = 100 * time.Millisecond

// piecesFor says how many pieces a transaction of n bytes at pos begins.
func (j *Journal) piecesFor(pos LSN, n int) int {
	d := span(j.c.pieceSize)
	pieces := 0
	for first := true; first || n > 0; first = false {
		if pos%d == 0 {
			pieces++
		}
		part := min(n, int(d-pos%d)-recordHeader)
		pos += recordSize(part)
		n -= part
	}
	return pieces
}

// reserve returns where a transaction of n bytes begins, once the pieces for it are free: first those that were recycled, then new ones, then it
// waits. The caller holds appending, so that they stay free.
func (j *Journal) reserve(n int) (begin LSN, err error) {
	var full error // of the host, when no more pieces can be made
	for {
		j.mu.Lock()
		err, free, total, seen, begin, making := j.usable(), len(j.free), len(j.live)+len(j.free), j.recycled, j.end, j.making
		j.mu.Unlock()
		need, begun := j.piecesFor(begin, n), 0
		if begin%span(j.c.pieceSize) != 0 {
			begun = 1 // the piece that the transaction begins in stays in use
		}
		switch {
		case err != nil:
			return 0, err
		case free >= need:
			j.prepareSpare(begin, n)
			return begin, nil
		case making:
			j.awaitSpare(seen)
			continue
		case full == nil && total < j.max:
			if full, err = j.grow(); err != nil {
				return 0, err
			}
			continue
		case full != nil && total < need+begun:
			next := begin + span(j.c.pieceSize) - 1
			next -= next % span(j.c.pieceSize)
			switch {
			case total < j.piecesFor(next, n):
				return 0, fmt.Errorf("journal: make a piece: %w", full)
			case seen == begin:
				j.skipTo(next)
				continue
			}
		}
		if err := j.press(true); err != nil {
			return 0, err
		}
		j.await(seen)
	}
}

// skipTo has the log go on at the front of a piece, though the one in use has room left: all of it is recycled, so it can be used again. The caller
// holds appending.
func (j *Journal) skipTo(next LSN) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.free = append(j.free, j.live...)
	j.live = j.live[:0]
	j.end, j.synced, j.recycled = next, next, next
}

// await returns when more than seen is recycled, or nothing will be, or after a while: who was asked for room may have been unable to make any just then.
func (j *Journal) await(seen LSN) {
	late := false
	timer := time.AfterFunc(askAgain, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		late = true
		j.cond.Broadcast()
	})
	defer timer.Stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.recycled == seen && j.usable() == nil && !late {
		j.cond.Wait()
	}
}

// Prepare makes the first piece, where there is none: then a host that gets full later still takes transactions. One that is full now is no error.
func (j *Journal) Prepare() error {
	j.appending.Lock()
	defer j.appending.Unlock()
	j.mu.Lock()
	err, total := j.usable(), len(j.live)+len(j.free)
	j.mu.Unlock()
	if err != nil || total > 0 {
		return err
	}
	_, err = j.grow()
	return err
}

// grow makes a piece, while no spare one is being made. full says that the host has no room for one, or this process no descriptor; anything else is sticky.
func (j *Journal) grow() (full, err error) {
	p, err := makePiece(j.c.Dir, pieceName(j.made), j.c.pieceSize)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		if !j.stunted {
			j.c.Events.Emit(event.Event{Kind: event.Info, Object: pieceName(j.made), Offset: -1, Err: err, Note: "no room or descriptor for another piece: the journal stays smaller"})
		}
		j.stunted = true
		return err, nil
	case err != nil:
		return nil, j.fail("make a piece", err)
	}
	j.stunted = false
	j.mu.Lock()
	j.made++
	j.free = append(j.free, p)
	j.mu.Unlock()
	return nil, nil
}

// press asks the caller for room: where more than half is used, once until that was answered or much came to it; always where somebody waits. An error
// says that there will be none.
func (j *Journal) press(waiting bool) error {
	if j.c.Pressed == nil {
		return nil
	}
	size := LSN(j.max) * LSN(j.c.pieceSize)
	j.mu.Lock()
	end := j.end
	ask := waiting || end-j.recycled > size/2 && (j.pressed <= j.recycled || end-j.pressed > size/8)
	if ask {
		j.pressed = end
	}
	j.mu.Unlock()
	if !ask {
		return nil
	}
	return j.c.Pressed(end)
}
