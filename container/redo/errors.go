package redo

import "errors"

var (
	// ErrMalformed: an authentic transaction that no writer writes.
	ErrMalformed = errors.New("malformed transaction")
	// ErrKind: a transaction of a kind that this program does not know: a newer one wrote it.
	ErrKind = errors.New("unknown kind of transaction")
)
