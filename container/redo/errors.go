package redo

import "errors"

var (
	// ErrMalformed: an authentic transaction that no writer writes.
	ErrMalformed = errors.New("malformed transaction")
	// ErrKind: a transaction of a kind that this program does not know: a newer one wrote it.
	ErrKind = errors.New("unknown kind of transaction")
	// ErrLost: the journal proves that transactions are missing which had been durable: the host lost or changed them. What is left of it is not
	// the last state, and to write it could roll files back.
	ErrLost = errors.New("the journal lost what had been durable; mount read-only")
	// ErrIncomplete: a file of the journal was not found, and not all directories could be read, so that nobody knows whether it has a name.
	ErrIncomplete = errors.New("a file of the journal may be in a directory that cannot be read; mount read-only")
)
