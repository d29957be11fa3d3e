package integration

import (
	"maps"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// go-fuse's own conformance tests, each on a fresh vault.
func TestPosix(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		t.Run(name, func(t *testing.T) {
			if name == "FcntlFlockLocksFile" {
				t.Skip("it wants one process to lock itself out, but the kernel gives fcntl locks to the process: it fails on ext4 alike; TestLocks has two processes")
			}
			bothModes(t, func(t *testing.T, m *mounted) { posixtest.All[name](t, m.dir) })
		})
	}
}
