package integration

import (
	"math/rand/v2"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// crashMount is a vault on a disk in memory, mounted but for the kernel, whose requests the test makes. Its methods end the test where they fail; those of the kernel
// answer an error, for must.
type crashMount struct {
	*crashStack
	*kernel
	t    testing.TB
	disk *disktest.Memory
	key  *keys.MasterKey
	over bool // unmounted
}

// newCrashMount mounts a new vault.
func newCrashMount(t testing.TB) *crashMount {
	t.Helper()
	base := newCrashBase(t, vault.Params{})
	return mountCrash(t, base.disk, base.key)
}

// mountCrash mounts the vault on a disk. What the test does not unmount is given up in the end.
func mountCrash(t testing.TB, m *disktest.Memory, key *keys.MasterKey) *crashMount {
	t.Helper()
	c := &crashMount{t: t, disk: m, key: key}
	c.mount()
	t.Cleanup(func() {
		if !c.over {
			c.abandon(m)
		}
	})
	return c
}

func (c *crashMount) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crashMount) mount() {
	c.t.Helper()
	s, err := openCrash(c.disk.Root(), c.key, true)
	c.must(err)
	c.crashStack, c.kernel, c.over = s, newKernel(s.FS), false
}

func (c *crashMount) unmount() {
	c.t.Helper()
	c.over = true
	c.must(c.Close())
}

// cut mounts what is left after a loss now. The mount itself goes on.
func (c *crashMount) cut(l disktest.Loss) *crashMount {
	c.t.Helper()
	return mountCrash(c.t, c.disk.Cut(l, rand.New(rand.NewPCG(1, 1))), c.key)
}

// file makes a file, open, and writes to it.
func (c *crashMount) file(dir uint64, name string, data []byte) (node, fh uint64) {
	c.t.Helper()
	node, _, fh, err := c.create(dir, name)
	c.must(err)
	c.must(c.write(node, fh, data, 0))
	return node, fh
}

// known looks up a name that is there.
func (c *crashMount) known(dir uint64, name string) (node uint64, a fuse.Attr) {
	c.t.Helper()
	node, a, err := c.lookup(dir, name)
	c.must(err)
	return node, a
}

// opened opens a file that can be.
func (c *crashMount) opened(node uint64, flags uint32) (fh uint64) {
	c.t.Helper()
	fh, err := c.open(node, flags)
	c.must(err)
	return fh
}

// content is what a file in the root can be read to hold.
func (c *crashMount) content(name string) ([]byte, error) {
	c.t.Helper()
	node, a := c.known(fuse.FUSE_ROOT_ID, name)
	fh := c.opened(node, unix.O_RDONLY)
	data, err := c.read(node, fh, 0, int(a.Size))
	c.must(c.close(node, fh, unix.O_RDONLY))
	return data, err
}
