package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	maxRequest    = 1 << 20  // bytes of one READ or WRITE; more gains nothing
	maxBackground = 16       // asynchronous requests: read-ahead and write-back. The kernel keeps more until these are answered; each costs a buffer of maxRequest
	maxInflight   = 32 << 20 // bytes of requests under way
	readAheadKiB  = 2 << 10  // two READs of maxRequest: one is worked on while the other is copied; the kernel's own default is 128
	dirtyPercent  = 50       // of the dirty pages that the kernel allows; the host's filesystem, into which they go, always has the rest
)

// MaxBuffers is how many bytes the buffers of requests take at most: of those under way, and one each for who waits for the next, of which there are rarely more
// than eight.
const MaxBuffers = maxInflight + 8*maxRequest

// MountOptions say where and how a filesystem is mounted.
type MountOptions struct {
	Mountpoint string
	AllowOther bool     // other users may enter; mode bits decide what they may do
	FsName     string   // first field in /proc/mounts; "coffer" where empty
	Options    []string // generic mount words: ro, nosuid, noatime, fsname=…; see options.go
	NoXAttrs   bool     // the kernel stops asking for extended attributes
	Debug      bool     // every request is logged

	// Wrap, if set, puts something between go-fuse and the filesystem, as tests do that count requests.
	Wrap func(fuse.RawFileSystem) fuse.RawFileSystem
}

// Mount mounts fs and returns when it can be used: the kernel holds requests until they are answered. It is served in the background until it is
// unmounted; Server.Wait waits for that, and FS.Close follows. As root mount(2) is called directly, and fusermount3 only where that fails.
func Mount(fs *FS, o MountOptions) (*fuse.Server, error) {
	w, err := parseWords(o.Options)
	if err != nil {
		return nil, err
	}
	if fs.cfg.ReadOnly {
		if err := w.add("ro"); err != nil {
			return nil, err
		}
	}
	fs.noAsk = o.NoXAttrs
	var raw fuse.RawFileSystem = fs
	if o.Wrap != nil {
		raw = o.Wrap(fs)
	}
	server, err := fs.attachServer(raw, o, w)
	if err != nil {
		return nil, fmt.Errorf("fs: mount: %w", err)
	}
	// Not Server.WaitMount: that opens a file of the mount, and a process that is killed while it waits for its own answer is not gone before the mount is
	// taken away by force.
	go server.Serve()
	tuneDevice(o.Mountpoint, fs.cfg.Log)
	return server, nil
}

func (fs *FS) attachServer(raw fuse.RawFileSystem, o MountOptions, w mountWords) (*fuse.Server, error) {
	opts := fs.serverOptions(o, w)
	if !fs.asRoot {
		return fuse.NewServer(raw, o.Mountpoint, opts)
	}
	direct := *opts
	direct.DirectMountStrict = true
	direct.DirectMountFlags = w.direct()
	direct.Options = fs.checks(o, w)
	server, err := fuse.NewServer(raw, o.Mountpoint, &direct)
	if err == nil {
		return server, nil
	}
	server, ferr := fuse.NewServer(raw, o.Mountpoint, opts)
	if ferr != nil {
		return nil, errors.Join(err, ferr)
	}
	return server, nil
}

// serverOptions are those of a mount by fusermount3.
func (fs *FS) serverOptions(o MountOptions, w mountWords) *fuse.MountOptions {
	name := w.fsName
	if name == "" {
		name = o.FsName
	}
	if name == "" {
		name = fs.String()
	}
	// Without CAP_ASYNC_DIO: the kernel drops its pages when it has sent an asynchronous direct write, not when that has ended, so that what a buffered
	// read finds in between stays. One at a time for each file is the price.
	caps := uint64(fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS_AUTO)
	if fs.cfg.WriteBack {
		// And without CAP_ATOMIC_O_TRUNC: the kernel sets the size to 0 once more after the answer to such an OPEN, and does not tell. What another writer sent in
		// between would be here, and not in its cache: the file would grow by that when the kernel forgot it.
		caps |= fuse.CAP_WRITEBACK_CACHE
	} else {
		caps |= fuse.CAP_ATOMIC_O_TRUNC
	}
	if fs.cfg.ACL {
		caps |= fuse.CAP_DONT_MASK | fuse.CAP_SETXATTR_EXT
	}
	return &fuse.MountOptions{
		AllowOther:              o.AllowOther || w.allowOther,
		Options:                 append(fs.checks(o, w), w.words...),
		FsName:                  name,
		Name:                    w.subtypeOr(fs.String()),
		MaxWrite:                maxRequest,
		MaxBackground:           maxBackground,
		MaxInflightRequestBytes: maxInflight,
		EnableSymlinkCaching:    true,
		EnableAcl:               fs.cfg.ACL,
		DisableXAttrs:           o.NoXAttrs,
		DisableSplice:           true, // every reply is memory: splicing would only cost pipes
		ExtraCapabilities:       caps,
		PanicHandler:            fs.panicked,
		Debug:                   o.Debug,
		Logger:                  log.New(fuseLog{fs.cfg.Log}, "", 0),
	}
}

// checks is the option that has the kernel check permissions. It is set unless nobody but root may enter: root may do everything, and
// the kernel's check costs one GETATTR of the directory before every name that is made, removed or looked up after the last such change. See Access.
func (fs *FS) checks(o MountOptions, w mountWords) []string {
	if fs.asRoot && !o.AllowOther && !w.allowOther && !fs.cfg.ACL && !w.checked {
		return nil
	}
	return []string{"default_permissions"}
}

func (w *mountWords) subtypeOr(name string) string {
	if w.subtype != "" {
		return w.subtype
	}
	return name
}

// panicked turns a panic in a request into EIO. It is counted, because a panic that only slows things down is easily missed.
func (fs *FS) panicked(v any) fuse.Status {
	fs.panics.Add(1)
	fs.cfg.Log.Error("panic in a request", "panic", v, "stack", string(debug.Stack()))
	return fuse.EIO
}

// fuseLog takes the lines of go-fuse.
type fuseLog struct{ to *slog.Logger }

// lastRead is what go-fuse says when the kernel takes the mount away while a request is being read: that reader gets ECONNABORTED, and all others ENODEV,
// which ends them silently. It happens in good unmounts, too.
var lastRead = []byte(fmt.Sprintf("Failed to read from fuse conn: %v", fuse.Status(unix.ECONNABORTED)))

func (l fuseLog) Write(line []byte) (int, error) {
	level := slog.LevelWarn
	if bytes.Contains(line, lastRead) {
		level = slog.LevelDebug
	}
	l.to.Log(context.Background(), level, string(bytes.TrimSpace(line)))
	return len(line), nil
}

// tuneDevice lets the kernel read as much ahead as two requests carry, and keep more than its hundredth of dirty pages: a file that is written at random is
// then gathered in memory, as on the host. Only root may; README has the udev rule for others.
func tuneDevice(mountpoint string, log *slog.Logger) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, mountpoint, unix.AT_STATX_DONT_SYNC, 0, &st); err != nil { // which asks us nothing
		log.Debug("device not tuned", "err", err)
		return
	}
	dir := fmt.Sprintf("/sys/class/bdi/%d:%d/", st.Dev_major, st.Dev_minor)
	set := func(name string, value int64) {
		if err := os.WriteFile(dir+name, strconv.AppendInt(nil, value, 10), 0); err != nil {
			log.Debug("device not tuned", "err", err)
		}
	}
	set("read_ahead_kb", readAheadKiB)
	set("max_ratio", dirtyPercent)
}
