package bulk

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
)

// Planned is what an Import would do, or has before it.
type Planned struct {
	Files   int64 `json:"files"`   // to copy
	Bytes   int64 `json:"bytes"`   // of them
	Skipped int64 `json:"skipped"` // finished, by size and mtime
	Failed  int64 `json:"failed"`  // that cannot be copied
}

// Plan walks the sources and compares them with what stands in the vault below to, which may be nil where that is missing. It changes nothing.
// failed is told what could not be copied.
func Plan(ctx context.Context, to plain.Node, sources []Source, failed func(path string, err error)) (p Planned) {
	for _, s := range sources {
		p.tree(ctx, to, s.Path, s.Name, failed)
	}
	return p
}

func (p *Planned) tree(ctx context.Context, to plain.Node, path, name string, failed func(string, error)) {
	if ctx.Err() != nil {
		return
	}
	there := to
	if name != "" && to != nil {
		n, err := to.Child(name)
		if err == nil {
			defer n.Release()
			there = n
		} else {
			there = nil
		}
	}
	if err := p.object(ctx, there, path, failed); err != nil {
		p.Failed++
		failed(path, err)
	}
}

// object plans one host object; there is what has its name in the vault, or nil.
func (p *Planned) object(ctx context.Context, there plain.Node, path string, failed func(string, error)) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return pathError("stat", path, err)
	}
	var have plain.Stat
	if there != nil {
		if s, err := there.Stat(); err == nil {
			have = s
		}
	}
	if have.Mode != 0 && (have.Type() == unix.S_IFDIR) != (st.Mode&unix.S_IFMT == unix.S_IFDIR) {
		return errExists
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		children, err := os.ReadDir(path)
		for _, c := range children {
			p.tree(ctx, there, filepath.Join(path, c.Name()), c.Name(), failed)
		}
		return err
	case unix.S_IFREG:
		if err := unix.Access(path, unix.R_OK); err != nil {
			return pathError("open", path, err)
		}
		if have.Type() == unix.S_IFREG && have.Size == st.Size && have.Mtime == st.Mtim {
			p.Skipped++
			return nil
		}
		p.Files++
		p.Bytes += st.Size
	case unix.S_IFLNK, unix.S_IFIFO:
	default:
		return ErrSkipped
	}
	return nil
}
