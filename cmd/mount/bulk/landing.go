package bulk

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// fewFiles is up to how many files, and directories, are made durable one by one: a sync of the host's filesystem has to wait for what others wrote to it, too.
const fewFiles = 8

// landing is small files that have their bytes and attributes and wait to become durable together, and then to get their names.
type landing struct {
	most int        // files at a time, 0: each by itself
	turn sync.Mutex // held while they are made durable

	mu    sync.Mutex // guards what follows; after turn
	files []landed
	bytes int64
	began time.Time
}

// landed is a small file that waits; it holds a reference of its directory.
type landed struct {
	*tempFile
	name string // the final one
	size int64
}

// durableFilesystems are those that a syncfs makes durable, by the numbers of statfs(2): not those that others serve, who are not told of it.
var durableFilesystems = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
}

// waiting is how many files may wait in a filesystem: each of them is open.
func waiting(fd int) int {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return 0
	}
	var files unix.Rlimit
	if !slices.Contains(durableFilesystems, int64(st.Type)) || unix.Getrlimit(unix.RLIMIT_NOFILE, &files) != nil {
		return 0
	}
	return int(min(batchFiles/2, files.Cur/4))
}

// land takes a file over that has all but durability and its name.
func (e *Export) land(f landed) {
	l := &e.landing
	f.dir.refs.Add(1)
	l.mu.Lock()
	if len(l.files) == 0 {
		l.began = time.Now()
	}
	l.files = append(l.files, f)
	l.bytes += f.size
	l.mu.Unlock()
	e.settle(false)
}

// full reports whether nothing is to be added to what waits.
func (l *landing) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.files) >= l.most || l.bytes >= checkpointBytes/2 || len(l.files) > 0 && time.Since(l.began) > checkpointTime
}

// settle makes what waits durable and gives it its names, where it is enough, or all of it, while others go on copying.
func (e *Export) settle(all bool) {
	l := &e.landing
	if !all && !l.full() {
		return
	}
	l.turn.Lock()
	defer l.turn.Unlock()
	if !all && !l.full() { // somebody else's turn took it
		return
	}
	l.mu.Lock()
	files := l.files
	l.files, l.bytes = nil, 0
	l.mu.Unlock()
	start := time.Now()
	synced := len(files) > fewFiles && unix.Syncfs(int(files[0].Fd())) == nil // an error may be another file's
	e.counters.syncing.Add(int64(time.Since(start)))
	for _, f := range files {
		if err := e.name(f, synced); err != nil {
			e.fail(filepath.Join(f.dir.path, f.name), err)
		} else {
			e.counters.files.Add(1)
		}
		f.discard()
		f.dir.release()
	}
}

// name gives a file that waited its name. Where all was synced, what that met in this file is asked for: old kernels do not answer it to the sync itself.
func (e *Export) name(f landed, synced bool) error {
	if synced {
		if err := unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE); err != nil {
			return os.NewSyscallError("sync_file_range", err)
		}
		return f.publish(f.name)
	}
	return e.publish(f.tempFile, f.name)
}

// ended is called for each directory that nothing is added to any more, and makes its names durable; where there are many, Run does so for all of them at its end.
func (e *Export) ended(d *destDir) error {
	if e.landing.most > 0 && e.dirs.Add(1) > fewFiles {
		return nil
	}
	return pathError("fsync", d.path, unix.Fsync(d.fd))
}

// end makes durable what Run has not: all of its files have ended.
func (e *Export) end(d *destDir) error {
	e.settle(true)
	if e.landing.most == 0 || e.dirs.Load() < fewFiles {
		return nil
	}
	start := time.Now()
	defer func() { e.counters.syncing.Add(int64(time.Since(start))) }()
	return pathError("syncfs", d.path, unix.Syncfs(d.fd))
}

// sync makes one file durable.
func (e *Export) sync(t *tempFile) error {
	start := time.Now()
	defer func() { e.counters.syncing.Add(int64(time.Since(start))) }()
	return t.Sync()
}
