package journal

import "github.com/cofferfs/coffer/internal/disk"

const (
	// hostBlock: records are written by whole blocks of the host, which can go past its page cache, or into it without reading first what it has not. What a block
	// held before the record is written again as it is; behind it come zeros, where nothing is yet.
	hostBlock = 4096
	// gatherSize bounds the buffer in which what is small is put together for one write.
	gatherSize = 128 << 10
	// directSize: slices of at least this length are written from where they are.
	directSize = 64 << 10
)

// gather puts slices together in b, the bytes of a file from off on, and writes them by whole blocks when they get too many.
type gather struct {
	f   disk.File
	off int64 // a multiple of hostBlock
	b   []byte
}

// add takes the next bytes. What fits b is not written.
func (g *gather) add(s []byte) error {
	if len(s) <= cap(g.b)-len(g.b) {
		g.b = append(g.b, s...)
		return nil
	}
	if err := g.spill(); err != nil {
		return err
	}
	if len(s) >= directSize {
		k := -len(g.b) & (hostBlock - 1)
		g.b = append(g.b, s[:k]...)
		if err := g.spill(); err != nil {
			return err
		}
		whole := k + (len(s)-k)&^(hostBlock-1)
		if err := g.write(s[k:whole]); err != nil {
			return err
		}
		s = s[whole:]
	}
	g.b = append(g.b, s...)
	return nil
}

// spill writes the whole blocks of b.
func (g *gather) spill() error {
	whole := len(g.b) &^ (hostBlock - 1)
	err := g.write(g.b[:whole])
	g.b = g.b[:copy(g.b, g.b[whole:])]
	return err
}

// write writes what comes next, if anything.
func (g *gather) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_, err := g.f.WriteAt(p, g.off)
	g.off += int64(len(p))
	return err
}

// end writes what is left to p, on the way w. Where that cannot be w becomes the way that it went.
func (g *gather) end(p *piece, w *way) error {
	if *w == flying {
		if begun, err := p.begin(g.b, g.off); begun || err != nil {
			return err
		}
		*w = direct
	}
	if *w == direct {
		if done, err := p.writeDirect(g.b, g.off); done || err != nil {
			return err
		}
		*w = cached
	}
	return g.write(g.b)
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
