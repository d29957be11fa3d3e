package journal

import "errors"

var (
	// ErrFailed: a write or sync of a piece failed earlier, or Fail was called. Its chain ends in that first error. Nothing is accepted any more.
	ErrFailed = errors.New("journal failed")
	// ErrClosed: the journal is closed.
	ErrClosed = errors.New("journal is closed")
	// ErrTooLarge: a transaction that does not fit all pieces but one.
	ErrTooLarge = errors.New("transaction too large for the journal")
	// ErrSize: Config.Size is out of bounds.
	ErrSize = errors.New("journal size out of bounds")
	// ErrVersion: a newer program wrote the journal.
	ErrVersion = errors.New("unknown journal version")
	// ErrPieces: authentic pieces contradict each other, as when one was copied beside itself.
	ErrPieces = errors.New("journal pieces contradict each other")
	// ErrMalformed: authentic records that no writer writes, or pieces that change while they are read.
	ErrMalformed = errors.New("malformed journal")
)
