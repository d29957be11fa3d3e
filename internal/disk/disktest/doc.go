// Package disktest is the conformance suite of package disk: what container, journal and the tests' fakes may rely on. An
// implementation passes it by
//
//	func TestDisk(t *testing.T) { disktest.TestDir(t, func(t *testing.T) disk.Dir { return … }) }
//
// where the function answers a new empty directory each time.
package disktest
