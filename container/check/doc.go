// Package check goes through a whole vault, and says what is wrong with it.
//
//	Verify   with the keys: every name, sidecar, target, attribute and frame          findings by plain path
//	Scrub    without a key: CRCs and digests of every container                       findings by host path
//	Repair   with the keys, writing: what is left of damaged files, under their names
//
//	directory --- names --- objects --- container.File.Verify
//	   |            |          |
//	   +------------+----------+--> Finding: damage, pending, leftover, foreign, unchecked
//
// It promises to go on behind whatever it finds, and that what it does not name opened and is authentic. It cannot see what is missing: a file that was
// deleted together with its name, or put back as it once was, leaves nothing to find.
//
// Verify and Scrub write nothing. One goroutine walks, a few others look at contents; findings come one at a time, in no order between files.
// For each object about 150 bytes are kept, to find two of one id. Nobody else may write to the vault, but for Verify with Config.Live (live.go).
//
// # The files, in reading order
//
//	finding.go verify.go walk.go live.go                 the walk, and what it finds; of a vault that is in use
//	scrub.go                                             the same without a key
//	trouble.go repair.go                                 what a repair takes on, in which order
//	rebuild.go relink.go salvage.go strip.go merge.go    what it does about each kind
//
// Read container/verify.go next, for one file.
package check
