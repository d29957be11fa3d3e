package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// counter counts the requests that reach the filesystem, by operation. Forgets are not counted: nobody waits for them.
type counter struct {
	fuse.RawFileSystem

	mu   sync.Mutex // guards what follows
	n    map[string]int
	open int // handles of files
}

func (c *counter) count(op string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[op]++
}

// opened counts the handle of a request that made one.
func (c *counter) opened(s fuse.Status) fuse.Status {
	if s == fuse.OK {
		c.mu.Lock()
		c.open++
		c.mu.Unlock()
	}
	return s
}

// handles answers how many files are open, as far as the kernel has told.
func (c *counter) handles() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// take returns the counts since the last take.
func (c *counter) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = nil
	return n
}

// show is "2 LOOKUP, 1 OPEN".
func show(n map[string]int) string {
	var all []string
	for _, op := range slices.Sorted(maps.Keys(n)) {
		all = append(all, fmt.Sprintf("%d %s", n[op], op))
	}
	return strings.Join(all, ", ")
}

func (c *counter) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	c.count("LOOKUP")
	return c.RawFileSystem.Lookup(cancel, h, name, out)
}

func (c *counter) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	c.count("GETATTR")
	return c.RawFileSystem.GetAttr(cancel, in, out)
}

func (c *counter) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	c.count("SETATTR")
	return c.RawFileSystem.SetAttr(cancel, in, out)
}

func (c *counter) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	c.count("CREATE")
	return c.opened(c.RawFileSystem.Create(cancel, in, name, out))
}

func (c *counter) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	c.count("OPEN")
	return c.opened(c.RawFileSystem.Open(cancel, in, out))
}

func (c *counter) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	c.count("READ")
	return c.RawFileSystem.Read(cancel, in, buf)
}

func (c *counter) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	c.count("WRITE")
	return c.RawFileSystem.Write(cancel, in, data)
}

func (c *counter) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	c.count("FLUSH")
	return c.RawFileSystem.Flush(cancel, in)
}

func (c *counter) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	c.count("FSYNC")
	return c.RawFileSystem.Fsync(cancel, in)
}

func (c *counter) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	c.RawFileSystem.Release(cancel, in)
	c.count("RELEASE")
	c.mu.Lock()
	c.open--
	c.mu.Unlock()
}

func (c *counter) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	c.count("GETXATTR")
	return c.RawFileSystem.GetXAttr(cancel, h, attr, dest)
}

func (c *counter) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	c.count("OPENDIR")
	return c.RawFileSystem.OpenDir(cancel, in, out)
}

func (c *counter) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	c.count("READDIR")
	return c.RawFileSystem.ReadDir(cancel, in, out)
}

func (c *counter) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	c.count("READDIRPLUS")
	return c.RawFileSystem.ReadDirPlus(cancel, in, out)
}

func (c *counter) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	c.count("LSEEK")
	return c.RawFileSystem.Lseek(cancel, in, out)
}

func (c *counter) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	c.count("ACCESS")
	return c.RawFileSystem.Access(cancel, in)
}

func (c *counter) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	c.count("MKDIR")
	return c.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (c *counter) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	c.count("SYMLINK")
	return c.RawFileSystem.Symlink(cancel, h, target, name, out)
}

func (c *counter) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	c.count("LINK")
	return c.RawFileSystem.Link(cancel, in, name, out)
}

func (c *counter) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	c.count("RENAME")
	return c.RawFileSystem.Rename(cancel, in, oldName, newName)
}

func (c *counter) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	c.count("UNLINK")
	return c.RawFileSystem.Unlink(cancel, h, name)
}

func (c *counter) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	c.count("RMDIR")
	return c.RawFileSystem.Rmdir(cancel, h, name)
}
