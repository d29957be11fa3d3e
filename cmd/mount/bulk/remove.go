package bulk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
)

// errDiffers keeps a source.
var errDiffers = errors.New("the copy differs from its source, which is kept")

// Remove removes the sources of an import that ended well, each once what stands for it in the vault below to was read back and is the same: the bytes of a file, the
// target of a symlink, the user attributes of both; then the directories that are empty. What is not in the vault stays: the import has told why. Of all else
// that stays failed is told, and kept counts it.
func Remove(ctx context.Context, to plain.Node, sources []Source, failed func(path string, err error)) (removed, kept int64) {
	r := remover{failed: failed, same: map[identity]string{}}
	for _, s := range sources {
		r.tree(ctx, to, s.Path, cmp.Or(s.Name, "."))
	}
	return r.removed, r.kept
}

type remover struct {
	failed        func(path string, err error)
	same          map[identity]string // files with several names that were compared: the object in the vault
	removed, kept int64
}

// tree reports whether nothing is left at path.
func (r *remover) tree(ctx context.Context, to plain.Node, path, name string) bool {
	if ctx.Err() != nil {
		return false
	}
	there, err := to.Child(name)
	if errors.Is(err, unix.ENOENT) {
		return false
	}
	gone := false
	if err == nil {
		gone, err = r.object(ctx, there, path, name == ".")
		there.Release()
	}
	switch {
	case err != nil && ctx.Err() == nil:
		r.kept++
		r.failed(path, err)
	case gone:
		r.removed++
	}
	return gone
}

// object removes one source object, but not the directory that stands for what is in it.
func (r *remover) object(ctx context.Context, there plain.Node, path string, within bool) (gone bool, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return false, pathError("stat", path, err)
	}
	have, err := there.Stat()
	if err != nil {
		return false, err
	}
	if have.Type() != st.Mode&unix.S_IFMT {
		return false, errDiffers
	}
	if have.Type() == unix.S_IFDIR {
		return r.directory(ctx, there, path, within)
	}
	if err := r.compare(ctx, there, &have, path, &st); err != nil {
		return false, err
	}
	if err := durable(there); err != nil {
		return false, err
	}
	if err := unix.Unlink(path); err != nil {
		return false, pathError("unlink", path, err)
	}
	return true, nil
}

// durable makes an object of a mount durable, with its name: what was finished before this import may have been written a moment ago, and by somebody else. A
// vault without a mount is durable as a whole when the import has ended.
func durable(there plain.Node) error {
	if x, ok := there.(interface{ Sync() error }); ok {
		return x.Sync()
	}
	return nil
}

func (r *remover) directory(ctx context.Context, there plain.Node, path string, within bool) (gone bool, err error) {
	children, err := os.ReadDir(path)
	gone = err == nil
	for _, c := range children {
		gone = r.tree(ctx, there, filepath.Join(path, c.Name()), c.Name()) && gone
	}
	if err != nil || !gone || within {
		return false, err
	}
	if err := sameAttributes(there, path); err != nil {
		return false, err
	}
	if err := durable(there); err != nil {
		return false, err
	}
	if err := unix.Rmdir(path); err != nil {
		return false, pathError("rmdir", path, err)
	}
	return true, nil
}

// compare says why what is in the vault is not the source.
func (r *remover) compare(ctx context.Context, there plain.Node, have *plain.Stat, path string, st *unix.Stat_t) error {
	if err := sameAttributes(there, path); err != nil {
		return err
	}
	switch have.Type() {
	case unix.S_IFREG:
		if have.Size != st.Size {
			return errDiffers
		}
		if r.same[identityOf(st)] == have.Object {
			return nil
		}
		if err := sameBytes(ctx, there, path, st); err != nil {
			return err
		}
		if st.Nlink > 1 {
			r.same[identityOf(st)] = have.Object
		}
	case unix.S_IFLNK:
		a, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if b, err := there.Readlink(); err != nil || a != b {
			return errors.Join(errDiffers, err)
		}
	}
	return nil
}

// sameBytes reads a file in the vault, which verifies it, and its source, which must not change meanwhile.
func sameBytes(ctx context.Context, there plain.Node, path string, st *unix.Stat_t) error {
	src, err := openSource(path, st)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := there.Open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	ok, err := same(ctx, src, f)
	if err == nil && !ok {
		err = errDiffers
	}
	return errors.Join(err, unchangedSource(src, st))
}

func sameAttributes(there plain.Node, path string) error {
	a, err := hostAttributes(path)
	if err != nil {
		return err
	}
	b, err := there.Xattrs("user.")
	if err != nil {
		return err
	}
	if !maps.EqualFunc(a, b, bytes.Equal) {
		return errDiffers
	}
	return nil
}
