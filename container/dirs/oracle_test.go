package dirs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// oracle runs the same operations on a vault and on a plain host directory, and compares every answer: the kernel's own
// filesystem says what POSIX wants.
type oracle struct {
	*vault
	t    *testing.T
	rng  *rand.Rand
	real string
}

// alphabet is small, so that names collide, and has a long one.
var alphabet = []string{"a", "b", "c", "d", longName}

func (o *oracle) path() string {
	p := alphabet[o.rng.IntN(len(alphabet))]
	for o.rng.IntN(3) > 0 && strings.Count(p, "/") < 3 {
		p += "/" + alphabet[o.rng.IntN(len(alphabet))]
	}
	return p
}

// walk answers the directory that holds the last component of path, with a reference.
func (o *oracle) walk(path string) (*Dir, string, error) {
	d := o.Root()
	d.Retain()
	parts := strings.Split(path, "/")
	for _, name := range parts[:len(parts)-1] {
		e, err := d.Lookup(name)
		if err != nil {
			d.Release()
			return nil, "", err
		}
		x, err := d.Child(name, e.ID)
		d.Release()
		if err != nil {
			return nil, "", err
		}
		d = x
	}
	return d, parts[len(parts)-1], nil
}

// on runs f on the parent directory of path.
func (o *oracle) on(path string, f func(d *Dir, name string) error) error {
	d, name, err := o.walk(path)
	if err != nil {
		return err
	}
	defer d.Release()
	return f(d, name)
}

func (o *oracle) on2(from, to string, f func(src *Dir, old string, dst *Dir, new string) error) error {
	return o.on(from, func(src *Dir, old string) error {
		return o.on(to, func(dst *Dir, new string) error { return f(src, old, dst, new) })
	})
}

func (o *oracle) step() (what string, ours, want error) {
	p, q := o.path(), o.path()
	rp, rq := filepath.Join(o.real, p), filepath.Join(o.real, q)
	switch k := o.rng.IntN(20); {
	case k < 4:
		ours = o.on(p, func(d *Dir, name string) error {
			f, _, err := d.CreateFile(name, 0o600, -1, -1)
			if err == nil {
				f.Close()
			}
			return err
		})
		fd, err := unix.Open(rp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return "create " + p, ours, err
	case k < 7:
		return "mkdir " + p, o.on(p, func(d *Dir, name string) error { return second(d.Mkdir(name, 0o755, -1, -1)) }), unix.Mkdir(rp, 0o755)
	case k < 8:
		return "symlink " + p, o.on(p, func(d *Dir, name string) error { return second(d.Symlink(name, "/dev/null", -1, -1)) }), unix.Symlink("/dev/null", rp) // no way leads through it, as ours
	case k < 10:
		return "unlink " + p, o.on(p, func(d *Dir, name string) error { return second(d.Unlink(name)) }), unix.Unlink(rp)
	case k < 12:
		return "rmdir " + p, o.on(p, func(d *Dir, name string) error { return second(d.Rmdir(name)) }), unix.Rmdir(rp)
	case k < 14:
		ours = o.on(p, func(src *Dir, old string) error {
			e, err := src.Lookup(old)
			if err != nil {
				return err
			}
			return o.on(q, func(dst *Dir, new string) error {
				return second(dst.Link(new, src, old, e.ID, o.rng.IntN(2) == 0))
			})
		})
		return "link " + p + " " + q, ours, unix.Link(rp, rq)
	}
	flags := []uint{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[o.rng.IntN(4)]
	ours = o.on2(p, q, func(src *Dir, old string, dst *Dir, new string) error {
		return third(o.Rename(src, old, dst, new, flags))
	})
	return fmt.Sprintf("rename %d %s %s", flags, p, q), ours, unix.Renameat2(unix.AT_FDCWD, rp, unix.AT_FDCWD, rq, flags)
}

// realTree and vaultTree answer paths with types and link counts.
func (o *oracle) realTree() (lines []string) {
	root, err := os.OpenRoot(o.real) // a path may be longer than the host takes in one call
	ok(o.t, err)
	defer root.Close()
	ok(o.t, fs.WalkDir(root.FS(), ".", func(p string, _ fs.DirEntry, err error) error {
		if p == "." || err != nil {
			return err
		}
		info, err := root.Lstat(p)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		lines = append(lines, fmt.Sprintf("/%s %o %d", p, st.Mode&unix.S_IFMT, st.Nlink))
		return nil
	}))
	slices.Sort(lines)
	return lines
}

func (o *oracle) vaultTree(d *Dir, path string) (lines []string) {
	all, err := d.Entries()
	ok(o.t, err)
	for _, e := range all {
		var st unix.Stat_t
		ok(o.t, d.Stat(e.Name, e.ID, &st))
		lines = append(lines, fmt.Sprintf("%s/%s %o %d", path, e.Name, st.Mode&unix.S_IFMT, st.Nlink))
		if x, err := d.Child(e.Name, e.ID); err == nil {
			lines = append(lines, o.vaultTree(x, path+"/"+e.Name)...)
			x.Release()
		}
	}
	slices.Sort(lines)
	return lines
}

func (o *oracle) compare(after string) {
	o.t.Helper()
	ours, want := strings.Join(o.vaultTree(o.Root(), ""), "\n"), strings.Join(o.realTree(), "\n")
	if ours != want {
		o.t.Fatalf("after %s the vault is\n%s\nand the host\n%s", after, ours, want)
	}
}

// TestAgainstHost runs random operations; -short runs fewer.
func TestAgainstHost(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	steps := 20000
	if testing.Short() {
		steps = 2000
	}
	v := newVault(t, func(c *Config) { c.MaxOpenDirs, c.MaxEntries = 2, 10 })
	o := &oracle{vault: v, t: t, rng: rand.New(rand.NewPCG(seed, 0)), real: t.TempDir()}
	for i := range steps {
		what, ours, want := o.step()
		if want == nil && ours != nil || want != nil && !errors.Is(ours, want) {
			t.Fatalf("step %d: %s: %v, the host says %v", i, what, ours, want)
		}
		if i%97 == 0 {
			o.compare(what)
		}
		if i%1009 == 0 {
			v.quiet()
			if len(v.dirs) != 1 || v.fds.n != 0 {
				t.Fatalf("step %d: %d live directories, %d descriptors", i, len(v.dirs), v.fds.n)
			}
			if got := v.links.Load(); got != int64(len(v.root.links)) {
				t.Fatalf("step %d: %d links counted, %d there", i, got, len(v.root.links))
			}
			v.mount()
		}
	}
	o.compare("all")
	v.quiet()
}
