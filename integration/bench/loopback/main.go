// Command loopback shows a directory as it is, by go-fuse's own pass-through file system: how fast a FUSE daemon in Go can be that does nothing. It is tuned as
// Coffer's mount is (large requests, read-ahead, caches that are kept), and data goes through the daemon.
//
//	loopback [-writeback] DIRECTORY MOUNTPOINT
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

var writeback = flag.Bool("writeback", false, "use the kernel's write-back cache")

// node keeps the kernel's pages of a file from one opening to the next.
type node struct{ *fusefs.LoopbackNode }

func (n *node) WrapChild(_ context.Context, child fusefs.InodeEmbedder) fusefs.InodeEmbedder {
	return &node{child.(*fusefs.LoopbackNode)}
}

func (n *node) Open(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	h, _, err := n.LoopbackNode.Open(ctx, forKernel(flags))
	return h, fuse.FOPEN_KEEP_CACHE, err
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	child, h, _, err := n.LoopbackNode.Create(ctx, name, forKernel(flags), mode, out)
	return child, h, fuse.FOPEN_KEEP_CACHE, err
}

// forKernel allows what the write-back cache needs: it reads what it fills up, and knows itself where a file ends.
func forKernel(flags uint32) uint32 {
	if !*writeback {
		return flags
	}
	if flags&syscall.O_ACCMODE == syscall.O_WRONLY {
		flags = flags&^syscall.O_ACCMODE | syscall.O_RDWR
	}
	return flags &^ syscall.O_APPEND
}

func main() {
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatalf("usage: %s [-writeback] DIRECTORY MOUNTPOINT", os.Args[0])
	}
	var st syscall.Stat_t
	if err := syscall.Stat(flag.Arg(0), &st); err != nil {
		log.Fatalf("%s: %v", flag.Arg(0), err)
	}
	data := &fusefs.LoopbackRoot{Path: flag.Arg(0), Dev: st.Dev}
	data.RootNode = &node{&fusefs.LoopbackNode{RootData: data}}
	minute := time.Minute
	options := &fusefs.Options{AttrTimeout: &minute, EntryTimeout: &minute, NullPermissions: true}
	options.FsName, options.Name = "loopback", "loopback"
	options.MaxWrite, options.MaxReadAhead, options.MaxBackground = 1<<20, 1<<20, 64
	options.DisableSplice = true
	options.DisabledCapabilities = fuse.CAP_PASSTHROUGH
	if *writeback {
		options.ExtraCapabilities = fuse.CAP_WRITEBACK_CACHE
		options.DisableXAttrs = true // else each write of the kernel is preceded by a question
	}
	server, err := fusefs.Mount(flag.Arg(1), data.RootNode, options)
	if err != nil {
		log.Fatalf("%s: %v", flag.Arg(1), err)
	}
	server.Wait()
}
