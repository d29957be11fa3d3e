package plain

import (
	"errors"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Node is one object under one of its names. Its methods may be called concurrently. Release gives it back, once; what came from it lives on.
type Node interface {
	Name() string // "" of the root
	// Stat returns the plain attributes; of a symlink those of itself.
	Stat() (Stat, error)
	// Child returns what a directory has under a name: ENOENT, ENOTDIR. "." is the node itself once more, of any type.
	Child(name string) (Node, error)
	// Children returns all of a directory, in no particular order: ENOTDIR.
	Children() ([]Node, error)
	// Readlink returns the target of a symlink: EINVAL for others.
	Readlink() (string, error)
	// Open opens the contents of a file: EISDIR, EINVAL for what has none.
	Open() (File, error)
	// Xattrs returns the extended attributes that begin with prefix.
	Xattrs(prefix string) (map[string][]byte, error)
	Release()
}

// File is the contents of a file, for reading. Methods may be called concurrently.
type File interface {
	io.ReaderAt // n < len(p) with io.EOF at the end
	Size() int64
	// NextData returns the first offset at or after off that has data; ok is false where none follows.
	NextData(off int64) (at int64, ok bool, err error)
	// NextHole returns the first offset at or after off, which has data, that is a hole; the end of the file counts as one. It looks no further than limit.
	NextHole(off, limit int64) (int64, error)
	Close() error
}

// Stat are the plain attributes of an object. Sizes in bytes.
type Stat struct {
	Mode                uint32 // with the bits of S_IFMT
	Size                int64
	Blocks              int64 // of 512 bytes, on the host
	UID, GID            uint32
	Nlink               uint64
	Rdev                uint64
	Object              string // the same for all names of an object
	Atime, Mtime, Ctime unix.Timespec
}

// Type is the S_IFMT part of the mode.
func (s *Stat) Type() uint32 { return s.Mode & unix.S_IFMT }

// ErrOutside: a path, or a symlink on it, leads out of the tree.
var ErrOutside = errors.New("the path, or a symbolic link on it, leads out of the vault")

const maxLinks = 40 // symlinks on one way, as for the kernel

// Walk returns the node of a path below root, with symlinks on the way followed within the tree, the last one with follow only. The path may begin with
// a slash. The caller releases the node; root stays its own.
func Walk(root Node, name string, follow bool) (Node, error) {
	links := 0
	way := []Node{} // below root, kept so that ".." in a target finds its directory
	defer func() {
		for _, n := range way {
			n.Release()
		}
	}()
	rest := split(name)
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			if len(way) == 0 {
				return nil, ErrOutside
			}
			way[len(way)-1].Release()
			way = way[:len(way)-1]
			continue
		}
		at := root
		if len(way) > 0 {
			at = way[len(way)-1]
		}
		n, err := at.Child(part)
		if err != nil {
			return nil, err
		}
		if len(rest) == 0 && !follow {
			return n, nil
		}
		st, err := n.Stat()
		if err == nil && st.Type() == unix.S_IFLNK {
			var target string
			if target, err = n.Readlink(); err == nil {
				n.Release()
				links++
				if links > maxLinks {
					return nil, unix.ELOOP
				}
				if strings.HasPrefix(target, "/") {
					return nil, ErrOutside
				}
				rest = append(split(target), rest...)
				continue
			}
		}
		if err != nil {
			n.Release()
			return nil, err
		}
		way = append(way, n)
	}
	if len(way) == 0 {
		return root.Child(".")
	}
	n := way[len(way)-1]
	way = way[:len(way)-1]
	return n, nil
}

// split cuts a path into its names; "." and empty ones are left out, ".." stays.
func split(name string) (parts []string) {
	for part := range strings.SplitSeq(name, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}
