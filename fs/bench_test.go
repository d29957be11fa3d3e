package fs

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/vault"
)

// benchStack mounts a new vault, but for the kernel.
func benchStack(b testing.TB) *Stack {
	passphrase := []byte("passphrase")
	dir := b.TempDir()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	_, err := vault.Create(dir, vault.Options{KDF: vault.KDF{Time: 1, MemoryKiB: 8, Threads: 1}}, passphrase)
	must(err)
	cfg, err := vault.ReadConfig(dir)
	must(err)
	mk, err := cfg.Unlock(passphrase)
	must(err)
	defer mk.Destroy()
	v, err := vault.Open(dir, cfg, mk, vault.OpenOptions{})
	must(err)
	s, err := NewStack(v, StackConfig{WriteBack: true, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	must(err)
	b.Cleanup(func() { must(s.Close()) })
	return s
}

func mustOK(b testing.TB, s fuse.Status) {
	b.Helper()
	if s != fuse.OK {
		b.Fatal(s)
	}
}

// BenchmarkFsync is what the daemon does for a page that is overwritten at random and made durable, as the requests come. With TMPDIR on a tmpfs the disk
// is not in it, nor ever are the kernel and its round trips.
func BenchmarkFsync(b *testing.B) {
	const size = 64 << 20
	s := benchStack(b)
	var out fuse.CreateOut
	mustOK(b, s.FS.Create(nil, &fuse.CreateIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0o644}, "file", &out))
	in := fuse.InHeader{NodeId: out.NodeId}
	data := make([]byte, 1<<20)
	write := func(p []byte, off int64) {
		_, status := s.FS.Write(nil, &fuse.WriteIn{InHeader: in, Fh: out.Fh, Offset: uint64(off), Size: uint32(len(p)), WriteFlags: fuse.WRITE_CACHE}, p)
		mustOK(b, status)
	}
	for off := int64(0); off < size; off += int64(len(data)) {
		write(data, off)
	}
	mustOK(b, s.FS.Fsync(nil, &fuse.FsyncIn{InHeader: in, Fh: out.Fh}))
	b.ReportAllocs()
	for b.Loop() {
		write(data[:4096], rand.Int64N(size/4096)*4096)
		mustOK(b, s.FS.Fsync(nil, &fuse.FsyncIn{InHeader: in, Fh: out.Fh, FsyncFlags: 1}))
	}
	s.FS.Release(nil, &fuse.ReleaseIn{InHeader: in, Fh: out.Fh})
	s.FS.Forget(out.NodeId, 1)
}

// BenchmarkSmallFiles is what the daemon does for files of 4 KiB in one directory, as the requests come: each is created, renamed, looked up, read and removed once,
// and forgotten in between. The kernel and its round trips are not in it.
func BenchmarkSmallFiles(b *testing.B) {
	s := benchStack(b)
	ok := func(s fuse.Status) { b.Helper(); mustOK(b, s) }
	root := fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}
	data := make([]byte, 4096)
	names := make([]string, 0, 1<<12)
	create := func() {
		for _, name := range names {
			var out fuse.CreateOut
			ok(s.FS.Create(nil, &fuse.CreateIn{InHeader: root, Flags: unix.O_WRONLY | unix.O_CREAT, Mode: 0o644}, name, &out))
			in := fuse.InHeader{NodeId: out.NodeId}
			_, status := s.FS.Write(nil, &fuse.WriteIn{InHeader: in, Fh: out.Fh, Size: uint32(len(data)), WriteFlags: fuse.WRITE_CACHE}, data)
			ok(status)
			ok(s.FS.Flush(nil, &fuse.FlushIn{InHeader: in, Fh: out.Fh}))
			s.FS.Release(nil, &fuse.ReleaseIn{InHeader: in, Fh: out.Fh})
			s.FS.Forget(out.NodeId, 1)
		}
	}
	remove := func() {
		for _, name := range names {
			ok(s.FS.Unlink(nil, &root, name))
		}
	}
	lookup := func() {
		for _, name := range names {
			var out fuse.EntryOut
			ok(s.FS.Lookup(nil, &root, name, &out))
			s.FS.Forget(out.NodeId, 1)
		}
	}
	read := func() {
		for _, name := range names {
			var out fuse.EntryOut
			ok(s.FS.Lookup(nil, &root, name, &out))
			in := fuse.InHeader{NodeId: out.NodeId}
			var open fuse.OpenOut
			ok(s.FS.Open(nil, &fuse.OpenIn{InHeader: in}, &open))
			_, status := s.FS.Read(nil, &fuse.ReadIn{InHeader: in, Fh: open.Fh, Size: uint32(len(data))}, data)
			ok(status)
			ok(s.FS.Flush(nil, &fuse.FlushIn{InHeader: in, Fh: open.Fh}))
			s.FS.Release(nil, &fuse.ReleaseIn{InHeader: in, Fh: open.Fh})
			s.FS.Forget(out.NodeId, 1)
		}
	}
	rename := func() { // there and back, as rename(2) asks, and the kernel then tells the ctime
		for _, name := range names {
			var e fuse.EntryOut
			ok(s.FS.Lookup(nil, &root, name, &e))
			for _, to := range []string{name + ".r", name} {
				var gone fuse.EntryOut
				ok(s.FS.Lookup(nil, &root, to, &gone))
				from := name
				if to == name {
					from += ".r"
				}
				ok(s.FS.Rename(nil, &fuse.RenameIn{InHeader: root, Newdir: fuse.FUSE_ROOT_ID}, from, to))
				now := time.Now()
				var out fuse.AttrOut
				ok(s.FS.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{
					InHeader: fuse.InHeader{NodeId: e.NodeId}, Valid: fuse.FATTR_MTIME | fuse.FATTR_CTIME,
					Mtime: e.Mtime, Mtimensec: e.Mtimensec, Ctime: uint64(now.Unix()), Ctimensec: uint32(now.Nanosecond()),
				}}, &out))
			}
			s.FS.Forget(e.NodeId, 1)
		}
	}
	for _, c := range []struct {
		name                 string
		before, timed, after func()
	}{
		{"create", func() {}, create, remove},
		{"rename", create, rename, remove},
		{"lookup", create, lookup, remove},
		{"read", create, read, remove},
		{"remove", create, remove, func() {}},
	} {
		b.Run(c.name, func(b *testing.B) {
			names = names[:0]
			for i := range b.N {
				names = append(names, fmt.Sprintf("file-%07d", i))
			}
			c.before()
			b.ReportAllocs()
			b.ResetTimer()
			c.timed()
			b.StopTimer()
			c.after()
		})
	}
}
