package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/internal/disk"
)

// host is a filesystem for vaults to lie on, and what it cannot do.
type host struct {
	name     string
	long     bool // an image is to be made
	mount    func(t *testing.T, dir string)
	noTmp    bool  // O_TMPFILE
	noAlloc  bool  // fallocate
	largest  int64 // size of a file that fits
	tooLarge int64 // one that does not; 0: none below the format's own limit
}

func hosts() []host {
	const tib = 1 << 40
	return []host{
		{name: "tmpfs", mount: mountNodev("tmpfs"), largest: 16 * tib},
		{name: "ramfs", mount: mountNodev("ramfs"), noAlloc: true, largest: 16 * tib},
		{name: "plain", mount: mountPlain, noTmp: true, noAlloc: true, largest: tib},
		{name: "ext4", long: true, mount: mountImage("mkfs.ext4", "-q"), largest: 15 * tib, tooLarge: 16 * tib},
		{name: "ext2", long: true, mount: mountImage("mkfs.ext2", "-q"), noAlloc: true, largest: tib, tooLarge: 16 * tib},
		{name: "xfs", long: true, mount: mountImage("mkfs.xfs", "-q"), largest: 16 * tib},
		{name: "btrfs", long: true, mount: mountImage("mkfs.btrfs", "-q"), largest: 16 * tib},
	}
}

// A vault works the same on each of them, but for what the host cannot do, and that is said.
func TestHosts(t *testing.T) {
	needRoot(t)
	for _, h := range hosts() {
		t.Run(h.name, func(t *testing.T) {
			if h.long {
				longTier(t, "makes a filesystem image")
			}
			m := mount(t, options{})
			m.stop()
			dir, home := t.TempDir(), m.vault
			h.mount(t, dir)
			m.vault = filepath.Join(dir, "vault")
			m.must(os.CopyFS(m.vault, os.DirFS(home)))
			m.start()
			m.onHost(h)
			m.stop() // before the host goes
			m.vault = home
			m.start()
		})
	}
}

func (m *mounted) onHost(h host) {
	t := m.t
	data := patterned(500_000)
	long := strings.Repeat("n", 255)
	file := m.write("file", data)
	m.must(os.Mkdir(m.path(long), 0o700))
	m.must(os.Link(file, m.path(long, long)))
	m.must(os.Symlink(strings.Repeat("t", 4095), m.path("symlink")))
	m.must(os.Symlink("short", m.path(long, "symlink")))
	m.must(unix.Mkfifo(m.path("fifo"), 0o640))
	m.must(unix.Mknod(m.path("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	other := m.write("other", []byte("other"))
	m.must(unix.Renameat2(unix.AT_FDCWD, other, unix.AT_FDCWD, m.path(long), unix.RENAME_EXCHANGE))
	m.must(os.Rename(m.path("fifo"), m.path("moved")))
	m.must(os.Chown(m.path("moved"), 12, 34))
	m.must(unix.Chmod(file, 0o2710))

	f := m.open("holes", os.O_RDWR|os.O_CREATE)
	_, err := f.WriteAt(data, 0)
	m.must(err)
	m.must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 100_000, 300_000))
	holes := bytes.Clone(data)
	clear(holes[100_000:400_000])
	m.want(f.Name(), holes)
	wants(t, "fallocate", unix.Fallocate(int(f.Fd()), 0, 0, 600_000), h.noAlloc)
	if !h.noAlloc {
		holes = append(holes, make([]byte, 100_000)...)
	}
	m.must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, 0, 5000)) // zeros are written where the host cannot make them
	clear(holes[:5000])
	m.must(f.Close())

	fd, err := unix.Open(m.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	wants(t, "O_TMPFILE", err, h.noTmp)
	if err == nil {
		tmp := os.NewFile(uintptr(fd), "tmpfile")
		_, err = tmp.Write(data)
		m.must(err)
		m.must(linkFile(tmp, m.path("tmpfile")))
		m.must(tmp.Close())
	}

	big := m.open("big", os.O_RDWR|os.O_CREATE)
	end := []byte("the end")
	if h.tooLarge > 0 {
		if err := big.Truncate(h.tooLarge); !errors.Is(err, unix.EFBIG) {
			t.Errorf("truncate to %d: %v", h.tooLarge, err)
		}
	}
	m.must(big.Truncate(h.largest))
	_, err = big.WriteAt(end, h.largest-int64(len(end)))
	m.must(err)
	m.must(big.Sync())
	m.must(big.Close())
	for range 2 {
		m.want(file, data)
		m.want(m.path("other", long), data)
		m.want(m.path(long), []byte("other"))
		m.want(m.path("holes"), holes)
		if !h.noTmp {
			m.want(m.path("tmpfile"), data)
		}
		if target, err := os.Readlink(m.path("symlink")); err != nil || target != strings.Repeat("t", 4095) {
			t.Errorf("target of %d bytes, %v", len(target), err)
		}
		if st := lstat(t, m.path("moved")); st.Mode != unix.S_IFIFO|0o640 || st.Uid != 12 || st.Gid != 34 {
			t.Errorf("fifo: mode %o, %d:%d", st.Mode, st.Uid, st.Gid)
		}
		if st := lstat(t, m.path("device")); st.Mode != unix.S_IFCHR|0o600 || st.Rdev != unix.Mkdev(1, 3) {
			t.Errorf("device: mode %o, %x", st.Mode, st.Rdev)
		}
		if st := lstat(t, file); st.Mode&0o7777 != 0o2710 || st.Nlink != 2 {
			t.Errorf("file: mode %o, %d links", st.Mode, st.Nlink)
		}
		big, err := os.Open(m.path("big"))
		m.must(err)
		got := make([]byte, 4096)
		n, err := big.ReadAt(got, h.largest-int64(len(end)))
		if string(got[:n]) != string(end) || lstat(t, big.Name()).Size != h.largest {
			t.Errorf("end of the largest file: %q, %v; size %d", got[:n], err, lstat(t, big.Name()).Size)
		}
		if off, err := unix.Seek(int(big.Fd()), 0, unix.SEEK_DATA); err != nil || off != h.largest-4096 {
			t.Errorf("its data begins at %d, %v", off, err)
		}
		m.must(big.Close())
		m.remount()
	}
	for _, name := range []string{"file", "other", "symlink", long, "moved", "device", "holes", "tmpfile", "big"} {
		m.must(os.RemoveAll(m.path(name)))
	}
}

// What is written past the memory of btrfs may have the next sync fail: nothing is, while ext4 takes the same.
func TestNothingPastBtrfs(t *testing.T) {
	needRoot(t)
	longTier(t, "makes filesystem images")
	for mkfs, want := range map[string]bool{"mkfs.btrfs": false, "mkfs.ext4": true} {
		dir := t.TempDir()
		mountImage(mkfs, "-q")(t, dir)
		root, err := disk.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		f, err := root.Create("f", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		got := f.(interface {
			WritePast(bufs [][]byte, off int64) bool
		}).WritePast([][]byte{disk.DirectBuffer(8192)}, 4096)
		if got != want {
			t.Errorf("%s: written past memory: %v", mkfs, got)
		}
		if err := errors.Join(f.Close(), root.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// wants checks that a call answers EOPNOTSUPP where the host cannot do it, and nothing else.
func wants(t testing.TB, what string, err error, cannot bool) {
	t.Helper()
	if cannot && err != unix.EOPNOTSUPP || !cannot && err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func mountNodev(fsType string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		if err := unix.Mount(fsType, dir, fsType, 0, ""); err != nil {
			t.Skipf("cannot mount %s: %v", fsType, err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
}

// mountImage makes a filesystem in a sparse file.
func mountImage(mkfs string, args ...string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		if _, err := exec.LookPath(mkfs); err != nil {
			t.Skipf("cannot make a host: %v", err)
		}
		image := filepath.Join(t.TempDir(), "image")
		if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 1<<30)); err != nil {
			t.Fatal(err)
		}
		for _, c := range [][]string{append(append([]string{mkfs}, args...), image), {"mount", "-o", "loop", image, dir}} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				t.Skipf("cannot make a host: %s: %v: %s", c[0], err, out)
			}
		}
		t.Cleanup(func() {
			if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
				t.Errorf("umount: %v: %s", err, out)
			}
		})
	}
}

// plainHost is a FUSE filesystem as simple ones are: no extended attributes, no fallocate, no O_TMPFILE, no flags of renameat2.
type plainHost struct{ fuse.RawFileSystem }

func (plainHost) GetXAttr(<-chan struct{}, *fuse.InHeader, string, []byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

func (plainHost) SetXAttr(<-chan struct{}, *fuse.SetXAttrIn, string, []byte) fuse.Status {
	return fuse.ENOSYS
}

func (plainHost) ListXAttr(<-chan struct{}, *fuse.InHeader, []byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

func (plainHost) RemoveXAttr(<-chan struct{}, *fuse.InHeader, string) fuse.Status {
	return fuse.ENOSYS
}

func (plainHost) Fallocate(<-chan struct{}, *fuse.FallocateIn) fuse.Status { return fuse.ENOSYS }

func (plainHost) Statx(<-chan struct{}, *fuse.StatxIn, *fuse.StatxOut) fuse.Status {
	return fuse.ENOSYS
}

func (plainHost) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status {
	return fuse.ENOSYS
}

func (p plainHost) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if in.Flags != 0 {
		return fuse.EINVAL
	}
	return p.RawFileSystem.Rename(cancel, in, from, to)
}

func mountPlain(t *testing.T, dir string) {
	root, err := fusefs.NewLoopbackRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	serveHost(t, plainHost{fusefs.NewNodeFS(root, &fusefs.Options{})}, dir, &fuse.MountOptions{DisableSplice: true})
}

// serveHost mounts a filesystem for a vault to lie on.
func serveHost(t *testing.T, host fuse.RawFileSystem, dir string, o *fuse.MountOptions) {
	t.Helper()
	o.AllowOther, o.DirectMount, o.Options = true, true, []string{"default_permissions", "dev", "suid"}
	server, err := fuse.NewServer(host, dir, o)
	if err != nil {
		t.Skipf("cannot mount a FUSE host: %v", err)
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil { // a vault that was killed on it has directories open
			t.Errorf("unmount the host: %v", err)
		}
	})
}
