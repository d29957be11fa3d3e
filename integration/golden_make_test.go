package integration

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk"
)

// goldenLongName is in a sidecar.
var goldenLongName = strings.Repeat("long name ", 25) + "12345"

// fill makes the vault in dir, which is empty, and returns its recovery key. unpackable: with what no archive can hold, too.
func (spec goldenSpec) fill(t testing.TB, dir string, unpackable bool) (recovery string) {
	t.Helper()
	recovery, err := vault.Create(dir, vault.Options{Params: spec.params, KDF: vault.KDF{Time: 1, MemoryKiB: 64, Threads: 2}}, []byte(goldenPass))
	if err != nil {
		t.Fatal(err)
	}
	m := openMaker(t, dir)
	root := m.tree.Root()
	geo := m.engine.Geometry()
	frame, segment := int64(geo.FrameSize), int64(geo.SegmentSize)
	part := min(frame, 4<<10) // of a frame: ciphertext does not compress
	group := int64(container.BlockSize/max(512, roundUpPower(128+56*geo.Frames))) * segment

	docs := m.dir(root, "docs", 0o755)
	deep := m.dir(docs, "deep", 0o750)
	m.dir(root, "private", 0o700).Release()
	m.dir(root, "removed", 0o700).Release()
	_, err = root.Rmdir("removed")
	m.must(err)

	// Every body kind, and the sizes at which they change.
	m.file(root, "empty", 0o644, 0)
	m.file(root, "hole", 0o600, 100_001)
	m.full(root, "hello", 0o640, 13)
	m.full(root, "inline-longest", 0o400, 3496)
	m.full(root, "inline-and-one", 0o444, 3497)
	m.file(root, "inline-sparse", 0o644, 1<<20, piece{0, 20})
	m.full(docs, "frame", 0o604, frame)
	m.full(docs, "frame-and-one", 0o644, frame+1)
	if segment <= 256<<10 {
		m.full(root, "segment", 0o644, segment)
		m.full(deep, "segment-and-one", 0o644, segment+1)
	}
	m.file(docs, "sparse", 0o644, segment-7, piece{frame, 10}, piece{segment - frame, part - 7})
	m.file(docs, "groups", 0o644, 3*group+5, piece{0, 1}, piece{group - frame, part}, piece{3 * group, 5})

	// A tree with two nodes at each of its levels, in a file that is nearly all holes; the last frame is cut by the size.
	far := []piece{{0, 4}, {31 * group, 3}, {32 * group, part}, {33*group + segment, 2}}
	for level := 1; level <= spec.levels; level++ {
		far = append(far, piece{(32 + 1<<(7*level)) * group, part + 9})
	}
	last := far[len(far)-1]
	m.file(root, "far", 0o644, last.off+last.n+1, far...)

	// Histories.
	m.shrink(docs, m.full(docs, "shrunk", 0o644, 3*frame), frame+100)
	m.shrink(docs, m.full(docs, "shrunk to nothing", 0o644, 3*frame), 0)
	_, _, err = m.tree.Rename(docs, "frame", deep, "moved frame", 0)
	m.must(err)
	linked := m.full(root, "linked", 0o644, 5)
	_, err = deep.Link("hard link", root, "linked", linked.ID, true)
	m.must(err)
	m.full(root, "exchanged a", 0o644, 1)
	m.full(root, "exchanged b", 0o644, 2)
	_, _, err = m.tree.Rename(root, "exchanged a", root, "exchanged b", unix.RENAME_EXCHANGE)
	m.must(err)

	// Names: the longest that needs no sidecar, the shortest that does, the longest; any bytes.
	for _, name := range []string{strings.Repeat("a", 146), strings.Repeat("b", 147), goldenLongName, "...", ".hidden", "\xff\x80 no UTF-8", "back\\slash\n", "Unicode \u00fc\U0001f510"} {
		m.full(root, name, 0o644, int64(len(name)))
	}
	long := m.dir(root, strings.Repeat("d", 255), 0o755)
	m.full(long, strings.Repeat("f", 255), 0o644, 1)
	long.Release()

	// Symlinks: of either kind, on both sides of the limit.
	m.symlink(root, "link", "docs/deep")
	m.symlink(docs, "link to bytes", "\xff\\ \n/..")
	m.symlink(docs, "longest host link", strings.Repeat("t", 3055))
	m.symlink(docs, "shortest container link", strings.Repeat("u", 3056))
	m.symlink(root, "longest link "+strings.Repeat("l", 200), strings.Repeat("v", 4095))

	_, err = root.Mknod("fifo", unix.S_IFIFO|0o620, 0, -1, -1)
	m.must(err)
	if unpackable {
		_, err = docs.Mknod("socket", unix.S_IFSOCK|0o600, 0, -1, -1)
		m.must(err)
		_, err = docs.Mknod("null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3), -1, -1)
		if err != nil && !errors.Is(err, unix.EPERM) { // devices are root's
			t.Fatal(err)
		}
	}

	// A loser: the older link of a name that two objects carry. And what is not ours.
	low, err := m.v.NextSeq()
	m.must(err)
	m.full(root, "contested", 0o644, 6)
	loser, _ := m.codec.Seal(root.ID(), names.Link{Type: names.File, Geometry: linked.Geometry, ID: linked.ID, Seq: low, Name: "contested"})
	m.must(os.Link(filepath.Join(dir, hostNameOf(m.goVault, root, linked)), filepath.Join(dir, loser)))
	m.must(os.WriteFile(filepath.Join(dir, "not ours.txt"), []byte("foreign\n"), 0o644))
	deep.Release()
	docs.Release()
	m.must(m.close())
	if spec.unclean {
		spec.crash(t, dir)
	}
	return recovery
}

// crash leaves what a session that did not end cleanly may leave (FORMAT.md 8.1, 8.2, 4.1), and then has the vault closed cleanly.
func (spec goldenSpec) crash(t testing.TB, dir string) {
	t.Helper()
	m := openMaker(t, dir)
	d := m.dir(m.tree.Root(), "crashed", 0o755)
	m.full(d, "replaced", 0o644, 77)
	m.full(d, "grown", 0o644, 5000)
	h, _, err := d.CreateFile("no header", 0o644, -1, -1)
	m.must(err)
	m.must(h.Close())
	h, _, err = d.CreateFile("header of zeros", 0o644, -1, -1)
	m.must(err)
	_, err = h.WriteAt([]byte("ciphertext without a header"), 8192)
	m.must(errors.Join(err, h.Close()))
	h, _, err = d.CreateFile("torn header", 0o644, -1, -1)
	m.must(err)
	_, err = h.WriteAt(append([]byte("COFFERC1"), make([]byte, 4088)...), 0)
	m.must(errors.Join(err, h.Close()))

	crashed, err := m.tree.Root().Lookup("crashed")
	m.must(err)
	hostDir := filepath.Join(dir, hostNameOf(m.goVault, m.tree.Root(), crashed))
	grown, err := d.Lookup("grown")
	m.must(err)
	m.must(resizeBy(hostNameOf(m.goVault, d, grown), 12345)(hostDir))
	seq, err := m.v.NextSeq()
	m.must(err)
	winner, _ := m.codec.Seal(d.ID(), names.Link{Type: names.File, Geometry: grown.Geometry, Flags: names.NoHeader,
		ID: keys.RandomObjectID(), Seq: seq, Name: "replaced"})
	m.must(os.WriteFile(filepath.Join(hostDir, winner), nil, 0o644))
	d.Release()
	m.must(m.tree.Close())
	m.must(m.v.CloseUnclean())
	m = openMaker(t, dir)
	if !m.v.Unclean() {
		t.Fatal("the unclean session is not remembered")
	}
	m.must(m.close())
}

func (m *maker) shrink(d *dirs.Dir, e dirs.Entry, size int64) {
	m.t.Helper()
	h, err := d.Open(e.Name, e.ID, disk.ReadWrite)
	m.must(err)
	f, err := m.engine.Open(h, e.ID, container.OpenOptions{TrustLength: true})
	m.must(err)
	m.must(errors.Join(f.SetSize(size), f.Sync(), f.Close()))
}

func openMaker(t testing.TB, dir string) *maker {
	t.Helper()
	g, err := openGo(dir, []byte(goldenPass), "", vault.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &maker{g, t}
}

func hostNameOf(g *goVault, parent *dirs.Dir, e dirs.Entry) string {
	host, _ := g.codec.Seal(parent.ID(), names.Link{Type: e.Type, Geometry: e.Geometry, Flags: e.Flags, ID: e.ID, Seq: e.Seq, Name: e.Name})
	return host
}

// piece is random content at an offset of a file.
type piece struct{ off, n int64 }

// maker fills a vault. Every failure ends the test.
type maker struct {
	*goVault
	t testing.TB
}

func (m *maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// dir makes a directory.
func (m *maker) dir(parent *dirs.Dir, name string, mode uint32) *dirs.Dir {
	m.t.Helper()
	e, err := parent.Mkdir(name, mode, -1, -1)
	m.must(err)
	m.must(parent.Chmod(name, e.ID, mode))
	d, err := parent.Child(name, e.ID)
	m.must(err)
	return d
}

// file makes a file of the given size that holds the pieces and is otherwise holes.
func (m *maker) file(d *dirs.Dir, name string, mode uint32, size int64, pieces ...piece) dirs.Entry {
	m.t.Helper()
	h, e, err := d.CreateFile(name, mode, -1, -1)
	m.must(err)
	f, err := m.engine.Create(h, e.ID, container.ObjectFile)
	m.must(err)
	for _, p := range pieces {
		data := make([]byte, p.n)
		_, _ = rand.Read(data) // never fails
		m.must(writePiece(f, data, p.off))
	}
	m.must(f.SetSize(size))
	m.must(f.Sync())
	m.must(f.Close())
	m.must(d.Chmod(name, e.ID, mode))
	return e
}

// full makes a file without holes.
func (m *maker) full(d *dirs.Dir, name string, mode uint32, size int64) dirs.Entry {
	m.t.Helper()
	return m.file(d, name, mode, size, piece{0, size})
}

func (m *maker) symlink(d *dirs.Dir, name, target string) {
	m.t.Helper()
	_, err := d.Symlink(name, target, -1, -1)
	if errors.Is(err, dirs.ErrTargetTooLong) {
		_, err = d.SymlinkContainer(name, -1, -1, func(h disk.File, id keys.ObjectID) error {
			f, err := m.engine.Create(h, id, container.ObjectSymlink)
			if err != nil {
				return err
			}
			return errors.Join(writePiece(f, []byte(target), 0), f.Sync(), f.Close())
		})
	}
	m.must(err)
}

// writePiece writes whole frames that hold p; what they held before besides is lost, as pieces never share a frame.
func writePiece(f *container.File, p []byte, off int64) error {
	g := f.Geometry()
	end, frame := off+int64(len(p)), int64(g.FrameSize)
	var ws []container.SegmentWrite
	for at := off - off%frame; at < end; at += frame {
		segment := uint64(at / int64(g.SegmentSize))
		if len(ws) == 0 || ws[len(ws)-1].Segment != segment {
			ws = append(ws, container.SegmentWrite{Segment: segment, Frames: make([][]byte, g.Frames)})
		}
		w := &ws[len(ws)-1]
		i := at % int64(g.SegmentSize) / frame
		buf := make([]byte, frame)
		from := max(at, off)
		copy(buf[from-at:], p[from-off:])
		w.Frames[i], w.Dirty = buf, w.Dirty|1<<i
	}
	return f.WriteFrames(max(end, f.Size()), ws)
}

func roundUpPower(n int) int {
	p := 1
	for p < n {
		p *= 2
	}
	return p
}
