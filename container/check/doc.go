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
// Read container/verify.go next, for one file.
package check
