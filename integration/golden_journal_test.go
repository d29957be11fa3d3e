package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/dirs"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/redo"
	"github.com/cofferfs/coffer/container/vault"
	"github.com/cofferfs/coffer/internal/disk"
	"github.com/cofferfs/coffer/internal/vectors"
	"github.com/cofferfs/coffer/journal"
)

// TestReaderJournal: a vault whose files are half overwritten, and whose journal has the bytes that belong there, reads as if nothing had happened: by the
// reader that was written from FORMAT.md, by Go for reading only, and by Go after a replay.
func TestReaderJournal(t *testing.T) {
	needRoot(t) // it opens files whatever their mode
	needPython(t)
	spec, dir := goldenVaults[0], t.TempDir()
	key := filepath.Join(t.TempDir(), recoveryFile)
	if err := os.WriteFile(key, []byte(spec.fill(t, dir, true)), 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := readByGo(dir, []byte(goldenPass), "")
	if err != nil {
		t.Fatal(err)
	}
	w := &wrecker{t: t, rng: rand.New(rand.NewPCG(4, 2)), seen: map[keys.ObjectID]bool{}}
	w.wreck(dir)
	if w.images < 100 || w.patches < 30 || w.made < 2 {
		t.Fatalf("only %d images, %d patches and %d files that are made", w.images, w.patches, w.made)
	}
	check := func(who string) {
		t.Helper()
		got, err := readByGo(dir, []byte(goldenPass), "")
		if err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		sameManifest(t, got, want)
		got, stderr, err := readByPython(dir, "--recovery-key-file="+key)
		if err != nil {
			t.Fatalf("%s: %v\n%s", who, err, stderr)
		}
		sameManifest(t, got, want)
	}
	check("with the journal")
	g, err := openGo(dir, []byte(goldenPass), "", vault.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.close(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".coffer", "journal.*")); err != nil || len(left) > 0 {
		t.Fatalf("pieces are left: %v %v", left, err)
	}
	check("after the replay")
}

// TestReaderJournalVectors: the second reader makes of the vectors of the journal what they say.
func TestReaderJournalVectors(t *testing.T) {
	needPython(t)
	files, err := filepath.Glob("../journal/testdata/vectors/journal_*")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			v, err := vectors.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Lost         bool
				Transactions []struct {
					LSN        uint64
					Head, Bulk string
				}
			}
			out, err := exec.Command(debianPython, "reader/journal.py", pieceFiles(t, v), v.Get("key"), v.Get("vault"), v.Get("id")).Output()
			if v.Get("expect") != "success" {
				var exit *exec.ExitError
				if !errors.As(err, &exit) || !bytes.HasPrefix(exit.Stderr, []byte("refused: ")) {
					t.Fatalf("%v, %s", err, out)
				}
				return
			}
			if err := errors.Join(err, json.Unmarshal(out, &got)); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got.Lost) != v.Get("lost") || uint64(len(got.Transactions)) != v.Uint("transactions") {
				t.Fatalf("lost %v, %d transactions", got.Lost, len(got.Transactions))
			}
			for i, x := range got.Transactions {
				if x.LSN != v.Uint(fmt.Sprintf("lsn_%d", i)) || x.Head != v.Get(fmt.Sprintf("head_%d", i)) || x.Bulk != v.Get(fmt.Sprintf("bulk_%d", i)) {
					t.Errorf("transaction %d at %d differs", i, x.LSN)
				}
			}
		})
	}
}

// pieceFiles writes the pieces of a vector into a directory.
func pieceFiles(t *testing.T, v *vectors.Vector) string {
	t.Helper()
	pieces := map[string][]byte{}
	for _, field := range v.Names() {
		if digits, ok := strings.CutPrefix(field, "journal_"); ok && len(digits) == 4 {
			pieces[digits] = make([]byte, v.Uint(field))
		} else if digits, at, ok := strings.Cut(digits, "_at_"); ok {
			off, err := strconv.Atoi(at)
			if err != nil {
				t.Fatal(err)
			}
			copy(pieces[digits][off:], v.Hex(field))
		}
	}
	dir := t.TempDir()
	for digits, b := range pieces {
		if err := os.WriteFile(filepath.Join(dir, "journal."+digits), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// wrecker overwrites what the containers of a vault hold, once it is in the journal.
type wrecker struct {
	t       *testing.T
	rng     *rand.Rand
	g       *goVault
	j       *journal.Journal
	seen    map[keys.ObjectID]bool
	images  int
	patches int
	made    int
}

func (w *wrecker) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *wrecker) wreck(dir string) {
	var err error
	w.g, err = openGo(dir, []byte(goldenPass), "", vault.OpenOptions{})
	w.must(err)
	w.j, err = journal.New(w.g.v.Journal())
	w.must(err)
	w.dir(w.g.tree.Root(), nil)
	w.removed(w.g.tree.Root())
	_, err = w.j.Append(journal.Entry{Head: (&redo.Head{ID: keys.RandomObjectID(), Length: 4096}).Append(nil)}) // of a file that was unlinked
	w.must(err)
	w.must(w.j.Sync(w.j.End()))
	w.must(w.j.Close(false))
	w.must(errors.Join(w.g.tree.Close(), w.g.v.CloseUnclean()))
}

func (w *wrecker) dir(d *dirs.Dir, path []string) {
	all, err := d.Entries()
	w.must(err)
	for _, e := range all {
		at := append(slices.Clone(path), hostNameOf(w.g, d, e))
		switch {
		case e.Type == names.Dir:
			child, err := d.Child(e.Name, e.ID)
			w.must(err)
			w.dir(child, at)
			child.Release()
		case e.Geometry != 0 && !w.seen[e.ID]:
			w.seen[e.ID] = true
			if w.rng.IntN(4) == 0 {
				at = nil // to be found by a walk
			}
			w.file(d, e, at)
		}
	}
}

// removed leaves a file on the host of which the journal says that it is gone.
func (w *wrecker) removed(d *dirs.Dir) {
	f, e, err := d.CreateFile("removed", 0o600, -1, -1)
	w.must(err)
	w.must(f.Close())
	_, err = w.j.Append(journal.Entry{Head: (&redo.End{ID: e.ID, Removed: true, Path: d.HostPath(e)}).Append(nil)})
	w.must(err)
}

// make has the journal make a file, and takes it from the host.
func (w *wrecker) make(d *dirs.Dir, e dirs.Entry, whole []byte, st *unix.Stat_t) {
	h := redo.Head{ID: e.ID, Path: d.HostPath(e), Length: st.Size, Images: []redo.Range{{Off: 0, Len: st.Size}}, Timed: true, Mtime: st.Mtim,
		Made: &redo.Made{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid}}
	_, err := w.j.Append(journal.Entry{Head: h.Append(nil), Bulk: [][]byte{whole}})
	w.must(err)
	_, err = d.Unlink(e.Name)
	w.must(err)
	w.made++
}

// file puts blocks of the first few of a container into the journal, with what a replay must not write, and overwrites them.
func (w *wrecker) file(d *dirs.Dir, e dirs.Entry, path []string) {
	const block, most = 4096, 40
	f, err := d.Open(e.Name, e.ID, disk.ReadWrite)
	w.must(err)
	defer f.Close()
	var st unix.Stat_t
	w.must(f.Stat(&st))
	whole := make([]byte, min(st.Size, most*block))
	_, err = f.ReadAt(whole, 0)
	w.must(err)
	junk := bytes.Repeat([]byte{0xaa}, len(whole))
	if n, err := f.Listxattr(nil); err == nil && n == 0 && st.Nlink == 1 && st.Size == int64(len(whole)) && e.Type == names.File &&
		!(names.Link{Name: e.Name}).IsLong() && w.rng.IntN(2) == 0 {
		w.make(d, e, whole, &st)
		return
	}

	early := redo.Head{ID: e.ID, Path: path, Length: -1, Images: []redo.Range{{Off: 0, Len: int64(len(whole))}}}
	_, err = w.j.Append(journal.Entry{Head: early.Append(nil), Bulk: [][]byte{junk}})
	w.must(err)
	late := redo.Head{ID: e.ID, Path: path, Length: st.Size}
	patched := redo.Head{ID: e.ID, Path: path, Length: -1}
	var bulk, patches [][]byte
	for off := int64(0); off < int64(len(whole)); off += block {
		r := redo.Range{Off: off, Len: min(block, int64(len(whole))-off)}
		if w.rng.IntN(3) == 0 && r.Len == block {
			late.Freed = append(late.Freed, r) // what stands there stays
			continue
		}
		late.Images = append(late.Images, r)
		image := whole[off : off+r.Len]
		if r.Len == block && w.rng.IntN(2) == 0 { // its third and fourth sectors come later
			from := off + 1024
			patched.Patches, patches = append(patched.Patches, redo.Range{Off: from, Len: 1024}), append(patches, whole[from:from+1024])
			image = slices.Concat(image[:1024], junk[:1024], image[2048:])
		}
		bulk = append(bulk, image)
		_, err = f.WriteAt(junk[:r.Len], off)
		w.must(err)
	}
	w.images += len(late.Images)
	_, err = w.j.Append(journal.Entry{Head: late.Append(nil), Bulk: bulk})
	w.must(err)
	w.patches += len(patches)
	_, err = w.j.Append(journal.Entry{Head: patched.Append(nil), Bulk: patches})
	w.must(err)
	switch {
	case st.Size > int64(len(whole)):
	case len(late.Freed) == 0: // all of it is in the journal
		w.must(f.Truncate(st.Size / 2))
	default:
		w.must(f.Truncate(st.Size + int64(w.rng.IntN(2))*block))
	}
}
