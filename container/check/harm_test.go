package check

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/journal"
)

// hostObject is one of the host below the vault.
type hostObject struct {
	dir  string // path of its directory
	name string
	mode uint32
	size int64
}

// hostObjects lists everything below the vault but .coffer.
func hostObjects(r *rig, root disk.Dir, path string) (all []hostObject) {
	d, err := openPath(root, path)
	r.must(err)
	defer d.Close()
	r.must(d.List(func(name string, _ uint64, _ uint8) error {
		if name == configDir {
			return nil
		}
		var st unix.Stat_t
		r.must(d.Stat(name, &st))
		all = append(all, hostObject{path, name, st.Mode & unix.S_IFMT, st.Size})
		return nil
	}))
	for _, o := range all {
		if o.mode == unix.S_IFDIR {
			all = append(all, hostObjects(r, root, below(path, o.name))...)
		}
	}
	return all
}

// harm does one bad thing to the host, and says which.
func (r *rig) harm(rng *mrand.Rand) string {
	r.t.Helper()
	for {
		if did := r.tryHarm(rng); did != "nothing" {
			return did
		}
	}
}

func openPath(root disk.Dir, path string) (disk.Dir, error) {
	return openBelow(root, strings.FieldsFunc(path, func(r rune) bool { return r == '/' }))
}

// hostDirAt opens a directory of the host. Unlike openPath it wraps nothing, so that it can take what is renamed.
func (r *rig) hostDirAt(root disk.Dir, path string) disk.Dir {
	r.t.Helper()
	if path == "" {
		return r.root()
	}
	d, err := openPath(root, path)
	r.must(err)
	return d
}

func (r *rig) tryHarm(rng *mrand.Rand) string {
	r.t.Helper()
	root := r.root()
	defer root.Close()
	all := hostObjects(r, root, "")
	if len(all) == 0 {
		return "nothing is left"
	}
	o := all[rng.IntN(len(all))]
	d := r.hostDirAt(root, o.dir)
	defer d.Close()
	other := all[rng.IntN(len(all))]
	to := r.hostDirAt(root, other.dir)
	defer to.Close()
	what := rng.IntN(17)
	if o.mode != unix.S_IFREG && what < 8 {
		what = 8 + rng.IntN(9)
	}
	switch what {
	case 8:
		return fmt.Sprintf("moved %s/%s to %q: %v", o.dir, o.name, other.dir, d.Rename(o.name, to, o.name, unix.RENAME_NOREPLACE))
	case 9:
		b := []byte(o.name)
		at := rng.IntN(len(b))
		b[at] = "AB"[rng.IntN(2)]
		return fmt.Sprintf("renamed %s/%s at letter %d: %v", o.dir, o.name, at, d.Rename(o.name, d, string(b), unix.RENAME_NOREPLACE))
	case 10:
		if other.mode != o.mode || strings.HasPrefix(other.dir, below(o.dir, o.name)) || strings.HasPrefix(o.dir, below(other.dir, other.name)) {
			return "nothing"
		}
		return fmt.Sprintf("swapped %s/%s and %s/%s: %v", o.dir, o.name, other.dir, other.name, d.Rename(o.name, to, other.name, unix.RENAME_EXCHANGE))
	case 11:
		if o.mode == unix.S_IFDIR {
			return "nothing"
		}
		return fmt.Sprintf("removed %s/%s: %v", o.dir, o.name, d.Unlink(o.name))
	case 12:
		name := []string{".DS_Store", "Thumbs.db", ".stfolder", "." + o.name + ".swp", o.name + ".partial", ".syncthing." + o.name + ".tmp", "file (conflict).txt"}[rng.IntN(7)]
		return fmt.Sprintf("put %s/%s there: %v", o.dir, name, r.putHost(d, name, "junk"))
	case 13:
		n := 0
		r.must(d.List(func(name string, _ uint64, _ uint8) error {
			if names.IsSidecar(name) && d.Unlink(name) == nil {
				n++
			}
			return nil
		}))
		if n == 0 {
			return "nothing"
		}
		return fmt.Sprintf("removed %d sidecars of %q", n, o.dir)
	case 14:
		if rng.IntN(3) > 0 {
			return "nothing"
		}
		removeAll(d, o.name)
		return fmt.Sprintf("removed %s/%s and all in it", o.dir, o.name)
	case 15: // as a copy does that knows no hard links, of directories too
		name := o.name
		if other.dir == o.dir || strings.HasPrefix(other.dir, below(o.dir, o.name)) {
			return "nothing"
		}
		return fmt.Sprintf("copied %s/%s and all in it to %q: %v", o.dir, o.name, other.dir, copyObject(d, o.name, to, name, nil))
	case 16:
		var list [4096]byte
		x := d.Xattrs(o.name)
		n, err := x.Listxattr(list[:])
		if err != nil || n == 0 {
			return "nothing"
		}
		all := strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00")
		attr := all[rng.IntN(len(all))]
		if rng.IntN(2) == 0 {
			return fmt.Sprintf("removed attribute %s of %s/%s: %v", attr, o.dir, o.name, x.Removexattr(attr))
		}
		return fmt.Sprintf("changed attribute %s of %s/%s: %v", attr, o.dir, o.name, x.Setxattr(attr, []byte("something that was never sealed"), 0))
	}
	f, err := d.Open(o.name, disk.ReadWrite)
	r.must(err)
	defer f.Close()
	b := make([]byte, o.size)
	if _, err := f.ReadAt(b, 0); err != nil || o.size == 0 {
		return "nothing"
	}
	at := rng.IntN(len(b))
	if rng.IntN(2) == 0 {
		at = rng.IntN(min(len(b), 3*4096))
	}
	n := min(len(b)-at, 1+rng.IntN(6000))
	switch what {
	case 0, 1, 2:
		n = 1
		b[at] ^= 1 << rng.IntN(8)
	case 3:
		at &^= 4095
		n = min(len(b)-at, 4096*(1+rng.IntN(3)))
		clear(b[at : at+n])
	case 4:
		r.must(f.Truncate(int64(at)))
		return fmt.Sprintf("cut %s/%s to %d", o.dir, o.name, at)
	case 5:
		r.must(f.Truncate(o.size + int64(n)))
		return fmt.Sprintf("extended %s/%s by %d", o.dir, o.name, n)
	case 6:
		if unit := []int{1, 512, 4096}[rng.IntN(3)]; unit > 1 {
			at -= at % unit
			n = min(len(b)-at, unit)
		}
		for i := range n {
			b[at+i] = byte(rng.Uint32())
		}
	case 7: // a copy, as a tool makes that brings back what is gone
		name := o.name
		if o.dir == other.dir {
			name += []string{" (conflicted copy)", ".sync-conflict-1", "~"}[rng.IntN(3)]
		}
		c, err := to.Create(name, 0o600)
		if err != nil {
			return "nothing"
		}
		defer c.Close()
		_, err = c.WriteAt(b, 0)
		return fmt.Sprintf("copied %s/%s to %s/%s: %v", o.dir, o.name, other.dir, name, err)
	}
	_, err = f.WriteAt(b[at:at+n], int64(at))
	return fmt.Sprintf("changed %d bytes at %d of %s/%s (%d): %v", n, at, o.dir, o.name, what, err)
}

func (r *rig) putHost(d disk.Dir, name, content string) error {
	f, err := d.Create(name, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(content), 0)
	return err
}

// harmCoffer does one bad thing to .coffer that leaves the vault its config.
func (r *rig) harmCoffer(rng *mrand.Rand) string {
	r.t.Helper()
	root := r.root()
	defer root.Close()
	d, err := root.OpenDir(configDir)
	r.must(err)
	defer d.Close()
	pieces, err := journal.Names(d)
	r.must(err)
	all := append([]string{"state", "state", "config", "config.bak", "lock"}, pieces...)
	for range 3 * len(pieces) {
		all = append(all, pieces[rng.IntN(len(pieces))])
	}
	name := all[rng.IntN(len(all))]
	f, err := d.Open(name, disk.ReadWrite)
	if err != nil {
		return "nothing"
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	r.must(err)
	if len(b) == 0 {
		return "nothing"
	}
	end := len(bytes.TrimRight(b, "\x00")) // what follows says nothing
	at := rng.IntN(max(end, 1))
	switch what := rng.IntN(7); {
	case strings.HasPrefix(name, "config") && what > 2: // as long as the other is good
		other := map[string]string{"config": "config.bak", "config.bak": "config"}[name]
		good, err := d.Open(other, disk.ReadWrite)
		if err != nil {
			return "nothing"
		}
		defer good.Close()
		c, err := io.ReadAll(io.NewSectionReader(good, 0, 1<<20))
		r.must(err)
		if !bytes.Equal(b, c) {
			return "nothing"
		}
		return fmt.Sprintf("removed %s: %v", name, d.Unlink(name))
	case strings.HasPrefix(name, "config"):
		return "nothing"
	case what == 0:
		return fmt.Sprintf("removed %s: %v", name, d.Unlink(name))
	case what == 1:
		return fmt.Sprintf("cut %s to %d: %v", name, at, f.Truncate(int64(at)))
	case what == 2 && strings.HasPrefix(name, "journal."):
		return fmt.Sprintf("copied %s: %v", name, r.putHost(d, fmt.Sprintf("journal.%04d", 10+rng.IntN(20)), string(b)))
	case what == 3 && len(pieces) > 1:
		other := pieces[rng.IntN(len(pieces))]
		return fmt.Sprintf("swapped %s and %s: %v", name, other, d.Rename(name, d, other, unix.RENAME_EXCHANGE))
	case what == 4:
		at -= at % 512
		n := min(512<<rng.IntN(5), len(b)-at)
		clear(b[at : at+n])
		_, err = f.WriteAt(b[at:at+n], int64(at))
		return fmt.Sprintf("zeroed %d bytes at %d of %s: %v", n, at, name, err)
	}
	_, err = f.WriteAt([]byte{b[at] ^ 1<<rng.IntN(8)}, int64(at))
	return fmt.Sprintf("flipped a bit at %d of %s: %v", at, name, err)
}

// removeAll removes an object and all below it.
func removeAll(d disk.Dir, name string) {
	if sub, err := d.OpenDir(name); err == nil {
		var all []string
		_ = sub.List(func(name string, _ uint64, _ uint8) error { all = append(all, name); return nil })
		for _, name := range all {
			removeAll(sub, name)
		}
		sub.Close()
		_ = d.Rmdir(name)
		return
	}
	_ = d.Unlink(name)
}

// copyObject copies an object and all below it, as far as pick says so of each path below it; nil: all. What is there stays, but for what is in directories.
func copyObject(from disk.Dir, name string, to disk.Dir, as string, pick func(path string) bool) error {
	var st unix.Stat_t
	if err := from.Stat(name, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := to.Mkdir(as, st.Mode&0o7777); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		a, err := from.OpenDir(name)
		if err != nil {
			return err
		}
		defer a.Close()
		b, err := to.OpenDir(as)
		if err != nil {
			return err
		}
		defer b.Close()
		copyXattrs(a.XattrsSelf(), b.XattrsSelf())
		var all []string
		err = a.List(func(name string, _ uint64, _ uint8) error { all = append(all, name); return nil })
		for _, x := range all {
			var below func(path string) bool
			if pick != nil {
				below = func(path string) bool { return pick(x + "/" + path) }
				if !pick(x) {
					continue
				}
			}
			err = errors.Join(err, copyObject(a, x, b, x, below))
		}
		return err
	case unix.S_IFLNK:
		target, err := from.Readlink(name)
		if err != nil {
			return err
		}
		return to.Symlink(target, as)
	case unix.S_IFREG:
		return copyHostFile(from, name, to, as, &st)
	}
	return nil
}

func copyHostFile(from disk.Dir, name string, to disk.Dir, as string, st *unix.Stat_t) error {
	a, err := from.Open(name, disk.ReadOnly)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := to.Create(as, st.Mode&0o7777)
	if err != nil {
		return err
	}
	defer b.Close()
	data, err := io.ReadAll(io.NewSectionReader(a, 0, 1<<40))
	if err != nil {
		return err
	}
	copyXattrs(a, b)
	if _, err := b.WriteAt(data, 0); err != nil {
		return err
	}
	return b.Utimes(&[2]unix.Timespec{st.Atim, st.Mtim})
}

func copyXattrs(from, to disk.Xattrs) {
	var list [4096]byte
	n, _ := from.Listxattr(list[:])
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		var value [4096]byte
		if k, err := from.Getxattr(attr, value[:]); attr != "" && err == nil {
			_ = to.Setxattr(attr, value[:k], 0)
		}
	}
}

// dump is all of the host, byte for byte.
func (r *rig) dump() string {
	r.t.Helper()
	root := r.root()
	defer root.Close()
	var b strings.Builder
	for _, dir := range []string{"", configDir} {
		for _, o := range hostObjects(r, root, dir) {
			d, err := openPath(root, o.dir)
			r.must(err)
			fmt.Fprintf(&b, "%s/%s %o %d", o.dir, o.name, o.mode, o.size)
			switch o.mode {
			case unix.S_IFREG:
				f, err := d.Open(o.name, disk.ReadOnly)
				r.must(err)
				data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
				r.must(err)
				f.Close()
				fmt.Fprintf(&b, " %x", sha256.Sum256(data))
			case unix.S_IFLNK:
				target, err := d.Readlink(o.name)
				r.must(err)
				b.WriteString(" " + target)
			}
			b.WriteByte('\n')
			d.Close()
		}
	}
	return b.String()
}

// split cuts the last name off a path.
func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// annotate gives an object two attributes.
func (r *rig) annotate(path string) {
	r.t.Helper()
	dir, name := split(path)
	d := r.dir(dir, false)
	e, err := d.Lookup(name)
	r.must(err)
	codec := xattrs.New(r.v.Ring().Xattr())
	r.must(d.Xattrs(name, e.ID, true, func(x disk.Xattrs) error {
		o := xattrs.Object{ID: e.ID}
		return errors.Join(codec.Set(x, o, "user.a", []byte("a of "+path), 0), codec.Set(x, o, "user.b", []byte("b of "+path), 0))
	}))
}

// longLink makes a symlink whose target is in a container.
func (r *rig) longLink(name string) {
	r.t.Helper()
	h, e, err := r.tree.Root().CreateContainer(name, names.Symlink, r.eng.Geometry().ID, 0o600, -1, -1)
	r.must(err)
	f, err := r.eng.Create(h, e.ID, container.ObjectSymlink)
	r.must(err)
	frames := make([][]byte, f.Geometry().Frames)
	frames[0] = make([]byte, f.Geometry().FrameSize)
	copy(frames[0], bytes.Repeat([]byte("target/"), 500))
	r.must(f.WriteFrames(3500, []container.SegmentWrite{{Frames: frames, Dirty: 1}}))
	r.must(f.Sync())
	r.must(f.Close())
}
