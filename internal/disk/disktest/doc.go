// Package disktest is the conformance suite of package disk: what container, journal and the tests' fakes may rely on. An
// implementation passes it by
//
//	func TestDisk(t *testing.T) { disktest.TestDir(t, func(t *testing.T) disk.Dir { return … }) }
//
// where the function answers a new empty directory each time.
//
// Memory is an implementation for tests of what a crash leaves: it knows what is on stable storage.
//
//	m := disktest.NewMemory()
//	m.Record()
//	work(m.Root())
//	for k := range m.Ops() + 1 {
//		for _, l := range disktest.PowerCuts() {
//			judge(m.CutAt(k, l, rng).Root()) // the disk as a cut after k operations may leave it
//		}
//	}
//
// Its parts: state.go has the names, stable.go what of them is stable, inode.go an object and what of it is stable, content.go the bytes, memory.go,
// memdir.go, memfile.go, memdirect.go and memxattr.go the calls, loss.go the cuts, record.go the log, fault.go what makes calls fail.
// disktest.go is the conformance suite; its tests are in names.go, files.go, attributes.go and xattrs.go.
package disktest
