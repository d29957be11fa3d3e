// Package plain shows the plain tree of an open vault without a mount: names, attributes, contents at any offset. It only reads.
//
//	View ── Root ──> Node ── Child, Children ──> Node ── Open ──> File, which opens the frames that are asked for and no other
//
// Node and File are interfaces, so that what reads a vault reads a mount of it as well (cmd/mount has that one). What a Node promises and what
// it refuses is what package dirs and package container do: a name that does not open is hidden and reported as an event, damage of a file is an error
// of the read that touches it.
//
// plain.go has the interfaces, view.go an open vault behind them.
package plain
