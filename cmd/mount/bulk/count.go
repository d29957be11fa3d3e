package bulk

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
)

// Count walks the jobs and returns how many files and bytes they have, for whoever shows how far a Run is. What cannot be read is left out: Run says so.
func Count(ctx context.Context, jobs []Job) (files, size int64) {
	c := counter{seen: map[string]bool{}}
	for _, j := range jobs {
		c.count(ctx, j.Node)
	}
	return c.files, c.size
}

type counter struct {
	files, size int64
	seen        map[string]bool // objects with several names
}

func (c *counter) count(ctx context.Context, n plain.Node) {
	st, err := n.Stat()
	if err != nil || ctx.Err() != nil || c.seen[st.Object] {
		return
	}
	switch st.Type() {
	case unix.S_IFREG:
		c.files++
		c.size += st.Size
		if st.Nlink > 1 {
			c.seen[st.Object] = true
		}
	case unix.S_IFDIR:
		children, err := n.Children()
		if err != nil {
			return
		}
		for _, child := range children {
			c.count(ctx, child)
			child.Release()
		}
	}
}
