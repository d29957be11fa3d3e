// Package redo is the way back from the journal: what the transactions of a vault look like, and what a mount makes of those that an unclean
// end left behind.
//
//	journal:  [head|bulk] [head|bulk] …      one transaction each, in order
//	           │    └ host bytes of one container, run after run: ciphertext, meta blocks, tree nodes, header
//	           └ which container, which runs, which became holes, how long it is, its mtime
//
// The redo is physical: a transaction carries the very bytes that go to the host file, so that replay opens no frame and needs no content key. What it
// writes is verified where it is read, by the pins and tags of the container format. Nothing in this package writes to the journal: package
// container appends the transactions that it describes.
//
// Replay writes the last state of every file and removes the journal; a View shows it to a mount that writes nothing. Both read the same index: of each block
// of 4 KiB the place of its last image in the journal.
//
// Read next: head.go, end.go and exchange.go for the bytes, FORMAT.md section 13.2 for the rules, then index.go, find.go, owner.go, finish.go, made.go and
// replay.go in the order of its steps; view.go, show.go and halfway.go show the same without writing; damage.go is for a journal that lost something;
// errors.go has the classes of errors.
package redo
