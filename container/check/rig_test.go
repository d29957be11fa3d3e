package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

var passphrase = []byte("check")

// rig is a vault, on the host or in memory, and what it holds.
type rig struct {
	t    testing.TB
	path string // "" in memory
	mk   *keys.MasterKey
	root func() disk.Dir

	strict bool // open as a mount does
	v      *vault.Vault
	tree   *dirs.Tree
	eng    *container.Engine
	unread func(path string, off int64) // told of frames that content cannot read; may be nil
}

var cheap = vault.Options{Params: vault.Params{SegmentSize: 16 << 10, FrameSize: 4 << 10}, KDF: vault.KDF{Time: 1, MemoryKiB: 8, Threads: 1}}

// newRig makes a vault on the host.
func newRig(t testing.TB) *rig {
	path := t.TempDir()
	return newRigOn(t, path, func() disk.Dir {
		d, err := disk.OpenRoot(path)
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

func newRigOn(t testing.TB, path string, root func() disk.Dir) *rig {
	t.Helper()
	r := &rig{t: t, path: path, root: root}
	d := root()
	defer d.Close()
	if _, err := vault.CreateDir(d, cheap, passphrase); err != nil {
		t.Fatal(err)
	}
	r.unlock(d)
	return r
}

func (r *rig) unlock(d disk.Dir) *vault.Config {
	r.t.Helper()
	cfg, err := vault.ReadConfigDir(d)
	r.must(err)
	if r.mk == nil {
		r.mk, err = cfg.Unlock(passphrase)
		r.must(err)
	}
	return cfg
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// open opens all layers.
func (r *rig) open(readOnly bool) {
	r.t.Helper()
	r.must(r.tryOpen(readOnly))
}

func (r *rig) tryOpen(readOnly bool) (err error) {
	d := r.root()
	cfg := r.unlock(d)
	if r.v, err = vault.OpenDir(d, cfg, r.mk, vault.OpenOptions{ReadOnly: readOnly, Recover: true, Salvage: !r.strict, ForceUnlock: !r.strict, Events: r.event}); err != nil {
		return err
	}
	c := container.EngineConfig{Ring: r.v.Ring(), Params: r.v.Params(), Events: r.event, View: r.v.View()}
	if !readOnly {
		j := r.v.Journal()
		c.Journal, c.Host = &j, r.v.Root()
	}
	if r.eng, err = container.NewEngine(c); err != nil {
		return err
	}
	r.tree, err = dirs.New(dirs.Config{
		Root: r.v.Root(), RootID: cfg.VaultID.Root(), Codec: names.New(r.v.Ring().Names()), Geometry: r.v.GeometryID(),
		NextSeq: r.v.NextSeq, SawSeq: r.v.SawSeq, ReadOnly: readOnly, Events: r.event, Intend: r.eng.Intend(),
		Headerless: func(l names.Link, d disk.Dir, host string) bool {
			return r.v.UncleanSeq(l.Seq) && r.eng.LacksHeader(d, host, l.ID)
		},
	})
	return err
}

func (r *rig) event(e event.Event) {}

func (r *rig) close() {
	r.t.Helper()
	r.must(r.tree.Close())
	r.must(r.eng.Close(true))
	r.must(r.v.Close())
}

// crash ends the session as the death of the process does.
func (r *rig) crash() {
	r.t.Helper()
	r.must(r.tree.Close())
	r.must(r.eng.Close(false))
	r.must(r.v.CloseUnclean())
}

// dir answers the directory at a plain path, which is made where it is missing and make is set.
func (r *rig) dir(path string, make bool) *dirs.Dir {
	r.t.Helper()
	d := r.tree.Root()
	for _, name := range strings.Split(path, "/") {
		if name == "" || name == "." {
			continue
		}
		e, err := d.Lookup(name)
		if errors.Is(err, unix.ENOENT) && make {
			e, err = d.Mkdir(name, 0o700, -1, -1)
		}
		r.must(err)
		d, err = d.Child(name, e.ID)
		r.must(err)
	}
	return d
}

// put makes a file. Ranges of zeros that are whole frames stay holes.
func (r *rig) put(path string, data []byte) {
	r.t.Helper()
	r.putBy(r.eng, path, data, (*container.File).Sync)
}

// putUnsynced makes a file as it is before anything of it was synced.
func (r *rig) putUnsynced(path string, data []byte) {
	r.t.Helper()
	eng, err := r.eng.Builder(r.eng.Geometry())
	r.must(err)
	r.putBy(eng, path, data, (*container.File).Flush)
}

func (r *rig) putBy(eng *container.Engine, path string, data []byte, sync func(f *container.File) error) {
	r.t.Helper()
	d := r.dir(filepath.Dir(path), true)
	h, e, err := d.CreateFile(filepath.Base(path), 0o640, -1, -1)
	r.must(err)
	f, err := eng.Create(h, e.ID, container.ObjectFile)
	r.must(err)
	g := f.Geometry()
	var ws []container.SegmentWrite
	for off := 0; off < len(data); off += g.FrameSize {
		plain := data[off:min(len(data), off+g.FrameSize)]
		if len(bytes.Trim(plain, "\x00")) == 0 {
			continue
		}
		frame := make([]byte, g.FrameSize)
		copy(frame, plain)
		s := uint64(off / g.SegmentSize)
		if n := len(ws); n == 0 || ws[n-1].Segment != s {
			ws = append(ws, container.SegmentWrite{Segment: s, Frames: make([][]byte, g.Frames)})
		}
		i := off % g.SegmentSize / g.FrameSize
		ws[len(ws)-1].Frames[i] = frame
		ws[len(ws)-1].Dirty |= 1 << i
	}
	r.must(f.WriteFrames(int64(len(data)), ws))
	r.must(f.SetSize(int64(len(data))))
	r.must(sync(f))
	r.must(f.Close())
}

// host is the host path of a plain one.
func (r *rig) host(path string) string {
	r.t.Helper()
	d, out := r.tree.Root(), r.path
	codec := names.New(r.v.Ring().Names())
	id := r.v.Config().VaultID.Root()
	for _, name := range strings.Split(path, "/") {
		e, err := d.Lookup(name)
		r.must(err)
		h, _ := codec.Seal(id, names.Link{Type: e.Type, Geometry: e.Geometry, Flags: e.Flags, ID: e.ID, Seq: e.Seq, Name: name})
		out, id = filepath.Join(out, h), e.ID
		if e.Type == names.Dir {
			d, err = d.Child(name, e.ID)
			r.must(err)
		}
	}
	return out
}

// content is all that can be read of a vault, frame by frame: path and offset, or "path/" for a directory, "path@" for a target.
func (r *rig) content() map[string]string {
	out := map[string]string{}
	r.read(r.tree.Root(), "", out)
	return out
}

func (r *rig) read(d *dirs.Dir, path string, out map[string]string) {
	all, err := d.Entries()
	if err != nil {
		return
	}
	for _, e := range all {
		p := below(path, e.Name)
		switch {
		case e.Type == names.Dir:
			out[p+"/"] = ""
			if sub, err := d.Child(e.Name, e.ID); err == nil {
				r.read(sub, p, out)
				sub.Release()
			}
		case e.Type == names.Symlink && e.Flags&names.ContainerSymlink == 0:
			if target, err := d.Readlink(e.Name, e.ID); err == nil {
				out[p+"@"] = target
			}
		default:
			r.readFile(d, e, p, out)
		}
		r.readAttributes(d, e, p, out)
	}
}

// readAttributes reads what is sealed of user.a and user.b as "path#user.a".
func (r *rig) readAttributes(d *dirs.Dir, e dirs.Entry, path string, out map[string]string) {
	if e.Type != names.File && e.Type != names.Dir {
		return
	}
	codec := xattrs.New(r.v.Ring().Xattr())
	_ = d.Xattrs(e.Name, e.ID, false, func(x disk.Xattrs) error {
		for _, name := range []string{"user.a", "user.b"} {
			if v, err := codec.Get(x, xattrs.Object{ID: e.ID}, name); err == nil {
				out[path+"#"+name] = string(v)
			}
		}
		return nil
	})
}

func (r *rig) readFile(d *dirs.Dir, e dirs.Entry, path string, out map[string]string) {
	h, err := d.Open(e.Name, e.ID, disk.ReadOnly)
	if err != nil {
		return
	}
	f, err := r.eng.Open(h, e.ID, container.OpenOptions{
		ReadOnly: true, MayLackHeader: e.Flags.MayLackHeader(e.Seq, r.v.UncleanSeq), TrustLength: !r.v.Unclean(), Object: objectKind(e.Type),
	})
	if err != nil {
		return
	}
	defer f.Close()
	out[path] = fmt.Sprint(f.Size())
	F := int64(f.Geometry().FrameSize)
	for off := int64(0); off < f.Size(); off += F {
		p := make([]byte, min(F, f.Size()-off))
		if f.ReadAt(p, off) == nil {
			out[fmt.Sprintf("%s:%d", path, off)] = string(p)
		} else if r.unread != nil {
			r.unread(path, off)
		}
	}
}

// verify runs Verify on the vault, which is not open, and sorts what it finds.
func (r *rig) verify() (Summary, []Finding) {
	r.t.Helper()
	r.open(true)
	defer r.close()
	var all []Finding
	sum, err := Verify(context.Background(), r.config(&all))
	r.must(err)
	sortFindings(all)
	return sum, all
}

func sortFindings(all []Finding) {
	slices.SortFunc(all, func(a, b Finding) int { return strings.Compare(line(a), line(b)) })
}

func line(f Finding) string {
	s := fmt.Sprintf("%s %s", f.Kind, f.Path)
	if f.Hidden {
		s += " [" + filepath.Base(f.Host) + "]"
	}
	if f.Bytes != nil {
		s += fmt.Sprintf(" %d-%d/%d", f.Bytes.From, f.Bytes.To, f.Bytes.Size)
	}
	return s + ": " + f.What
}

func lines(all []Finding) string {
	var b strings.Builder
	for _, f := range all {
		b.WriteString(line(f) + "\n")
	}
	return b.String()
}

func (r *rig) config(all *[]Finding) Config {
	return Config{
		Root: r.v.Root(), RootID: r.v.Config().VaultID.Root(), Codec: names.New(r.v.Ring().Names()), Attrs: xattrs.New(r.v.Ring().Xattr()), Engine: r.eng,
		UncleanSeq: r.v.UncleanSeq, UncleanTime: r.v.UncleanTime, Unclean: r.v.Unclean(),
		Found: func(f Finding) { *all = append(*all, f) },
	}
}

func pattern(seed uint64, n int) []byte {
	rng := mrand.New(mrand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32()) | 1
	}
	return b
}

var long = strings.Repeat("long", 50)

// fill gives a vault one of everything, and closes it.
func (r *rig) fill() {
	r.t.Helper()
	r.open(false)
	r.put("empty", nil)
	r.put("hole", make([]byte, 20000))
	r.put("inline", pattern(1, 900))
	r.put("single", pattern(2, 9000))
	r.put("docs/tree", pattern(3, 200_000))
	r.put("docs/deep/"+long, pattern(4, 5000))
	sparse := make([]byte, 3<<20)
	copy(sparse[2<<20:], pattern(5, 70000))
	r.put("docs/sparse", sparse)
	_, err := r.tree.Root().Symlink("link", "docs/tree", -1, -1)
	r.must(err)
	r.close()
}

// walkHost calls f for every regular file of the host below the vault, but not of .coffer.
func (r *rig) walkHost(f func(path string)) {
	r.t.Helper()
	r.must(filepath.WalkDir(r.path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == configDir {
			return fs.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			f(path)
		}
		return err
	}))
}

// change rewrites a host file.
func (r *rig) change(path string, f func(b []byte) []byte) {
	r.t.Helper()
	b, err := os.ReadFile(path)
	r.must(err)
	r.must(os.WriteFile(path, f(b), 0o600))
}
