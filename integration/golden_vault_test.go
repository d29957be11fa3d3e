package integration

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/event"
)

// fullHashMax: a manifest lists the stored ranges of files that are larger. The reader has the same number.
const fullHashMax = 64 << 20

// manifestEntry is one line of what a vault holds, as integration/reader prints it with --json.
type manifestEntry struct {
	Path   string        `json:"path"` // escaped
	Type   string        `json:"type"`
	Mode   string        `json:"mode"`
	Size   *int64        `json:"size,omitempty"`
	SHA256 string        `json:"sha256,omitempty"`
	Stored []storedRange `json:"stored,omitempty"`
	Target string        `json:"target,omitempty"` // escaped
	Device string        `json:"device,omitempty"`

	Xattrs map[string]string `json:"xattrs,omitempty"` // name -> SHA-256 of the value; the reader alone fills it

	path string // plain
}

// storedRange is a run of frames that are no holes, up to the next hole or the plain size.
type storedRange struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	SHA256 string `json:"sha256"`
}

type manifest struct {
	Entries []manifestEntry `json:"entries"`
}

// goVault is a vault opened by the Go packages below fs: no FUSE, no cache.
type goVault struct {
	v      *vault.Vault
	tree   *dirs.Tree
	engine *container.Engine
	codec  *names.Codec

	mu       sync.Mutex // guards findings
	findings []error
}

// openGo opens the vault at path by passphrase or, where that is nil, by recovery key.
func openGo(path string, pass []byte, recovery string, o vault.OpenOptions) (g *goVault, err error) {
	cfg, err := vault.ReadConfig(path)
	if err != nil {
		return nil, err
	}
	// A spare config that has to stand in is a success of the program and a finding of a test.
	if err := cfg.Warning(); err != nil {
		return nil, err
	}
	var mk *keys.MasterKey
	if pass != nil {
		mk, err = cfg.Unlock(pass)
	} else {
		var raw []byte
		if raw, err = keys.DecodeRecovery(recovery); err == nil {
			mk, err = keys.MasterKeyFrom(raw)
		}
	}
	if err != nil {
		return nil, err
	}
	defer mk.Destroy()
	g = &goVault{}
	o.Events = g.event
	if g.v, err = vault.Open(path, cfg, mk, o); err != nil {
		return nil, err
	}
	g.codec = names.New(g.v.Ring().Names())
	g.engine, err = container.NewEngine(container.EngineConfig{Ring: g.v.Ring(), Params: g.v.Params(), Events: g.event})
	if err == nil {
		g.tree, err = dirs.New(dirs.Config{
			Root: g.v.Root(), RootID: cfg.VaultID.Root(), Codec: g.codec, Geometry: g.v.GeometryID(),
			NextSeq: g.v.NextSeq, SawSeq: g.v.SawSeq, Headerless: g.headerless, ReadOnly: o.ReadOnly, Events: g.event,
		})
	}
	if err != nil {
		return nil, errors.Join(err, g.v.CloseUnclean())
	}
	return g, nil
}

func (g *goVault) close() error {
	return errors.Join(g.tree.Close(), g.v.Close())
}

var sealedForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// event keeps what is damage. A name in the form of a sealed one that does not open counts: in a test vault it can be nothing else.
func (g *goVault) event(e event.Event) {
	foreign := e.Kind == event.Foreign && len(e.Object) >= 64 && sealedForm.MatchString(e.Object)
	if foreign || e.Kind == event.Damage || e.Kind == event.Duplicate || e.Kind == event.Failed {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.findings = append(g.findings, fmt.Errorf("%s: %s %s: %w", e.Kind, e.Object, e.Note, cmp.Or(e.Err, names.ErrForeign)))
	}
}

func (g *goVault) headerless(l names.Link, d disk.Dir, host string) bool {
	return g.v.UncleanSeq(l.Seq) && g.engine.LacksHeader(d, host, l.ID)
}

// manifest reads the whole vault and fails at the first thing that is refused.
func (g *goVault) manifest() (manifest, error) {
	var m manifest
	if err := g.walk(g.tree.Root(), "", map[keys.ObjectID]uint64{}, &m.Entries); err != nil {
		return m, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	slices.SortFunc(m.Entries, func(a, b manifestEntry) int { return cmp.Compare(a.path, b.path) })
	return m, errors.Join(g.findings...)
}

func (g *goVault) walk(d *dirs.Dir, prefix string, inodes map[keys.ObjectID]uint64, out *[]manifestEntry) error {
	entries, err := d.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		var st unix.Stat_t
		if err := d.Stat(e.Name, e.ID, &st); err != nil {
			return err
		}
		if ino, seen := inodes[e.ID]; seen && ino != st.Ino {
			return dirs.ErrDuplicate
		}
		inodes[e.ID] = st.Ino
		line := manifestEntry{path: prefix + e.Name, Path: escapePath(prefix + e.Name), Mode: fmt.Sprintf("%04o", st.Mode&0o7777)}
		switch e.Type {
		case names.File:
			line.Type = "file"
			err = g.open(d, e, container.ObjectFile, func(f *container.File) error { return line.describe(f) })
		case names.Dir:
			line.Type = "dir"
			var child *dirs.Dir
			if child, err = d.Child(e.Name, e.ID); err == nil {
				err = g.walk(child, prefix+e.Name+"/", inodes, out)
				child.Release()
			}
		case names.Symlink:
			var target string
			if target, err = g.target(d, e); err == nil {
				size := int64(len(target))
				line.Type, line.Size, line.Target = "symlink", &size, escapePath(target)
				if e.Flags&names.ContainerSymlink == 0 && st.Size != size {
					err = fmt.Errorf("symlink has %d bytes, its host length says %d", size, st.Size)
				}
			}
		case names.FIFO:
			line.Type = "fifo"
		case names.Socket:
			line.Type = "socket"
		case names.CharDev, names.BlockDev:
			line.Type = map[names.Type]string{names.CharDev: "char", names.BlockDev: "block"}[e.Type]
			line.Device = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", line.Path, err)
		}
		*out = append(*out, line)
	}
	return nil
}

// open runs read on a container that may be what an unclean session left.
func (g *goVault) open(d *dirs.Dir, e dirs.Entry, object uint8, read func(*container.File) error) error {
	h, err := d.Open(e.Name, e.ID, disk.ReadOnly)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := h.Stat(&st); err != nil {
		h.Close()
		return err
	}
	f, err := g.engine.Open(g.v.View().Wrap(e.ID, h), e.ID, container.OpenOptions{
		ReadOnly: true, Object: object, TrustLength: !g.v.UncleanTime(st.Ctim),
		MayLackHeader: e.Flags.MayLackHeader(e.Seq, g.v.UncleanSeq),
	})
	if err != nil {
		return err
	}
	return errors.Join(read(f), f.Close())
}

func (g *goVault) target(d *dirs.Dir, e dirs.Entry) (target string, err error) {
	if e.Flags&names.ContainerSymlink == 0 {
		return d.Readlink(e.Name, e.ID)
	}
	err = g.open(d, e, container.ObjectSymlink, func(f *container.File) error {
		p := make([]byte, f.Size())
		err := f.ReadAt(p, 0)
		target = string(p)
		return err
	})
	return target, err
}

// describe says what a file holds.
func (line *manifestEntry) describe(f *container.File) (err error) {
	size := f.Size()
	line.Size = &size
	if size <= fullHashMax {
		line.SHA256, err = hashRange(f, 0, size)
		return err
	}
	for at := int64(0); ; {
		from, ok, err := f.NextData(at)
		if err != nil || !ok {
			return err
		}
		to, err := f.NextHole(from, f.Size())
		if err != nil {
			return err
		}
		sum, err := hashRange(f, from, to-from)
		if err != nil {
			return err
		}
		line.Stored = append(line.Stored, storedRange{from, to - from, sum})
		at = to
	}
}

func hashRange(f *container.File, off, n int64) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, io.NewSectionReader(readerAt{f}, off, n))
	return hex.EncodeToString(h.Sum(nil)), err
}

type readerAt struct{ *container.File }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if err := r.File.ReadAt(p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// escapePath leaves printable ASCII but the backslash as it is.
func escapePath(s string) string {
	var b bytes.Buffer
	for _, c := range []byte(s) {
		if c < 0x20 || c >= 0x7f || c == '\\' {
			fmt.Fprintf(&b, "\\x%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
