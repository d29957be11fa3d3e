package disktest

import (
	"bytes"
	"maps"
)

const (
	pageSize   = 4096
	chunkPages = 256 // pages whose table is shared or copied as one
	chunkSize  = chunkPages * pageSize
)

// content is the bytes of a file: a sparse table of pages, which clones share until one of them writes.
type content struct {
	size   int64
	id     *token
	chunks map[int64]*chunk
}

// token marks what a content may change in place. A clone takes it away from both sides.
type token struct{ _ byte }

type chunk struct {
	by    *token
	pages [chunkPages]*page
}

type page struct {
	by   *token
	data [pageSize]byte
}

// zeros stands for all pages that were written with zeros, as a journal's are at first. It is nobody's, and so never changed.
var zeros = new(page)

func newContent() *content { return &content{id: new(token), chunks: map[int64]*chunk{}} }

func (c *content) clone() *content {
	c.id = new(token)
	return &content{size: c.size, id: new(token), chunks: maps.Clone(c.chunks)}
}

// read fills p from off, with zeros where there is no page; the size is not looked at.
func (c *content) read(p []byte, off int64) {
	eachPage(off, int64(len(p)), func(at, n int64) {
		dst := p[at-off:][:n]
		if pg := c.page(at); pg != nil {
			copy(dst, pg.data[at%pageSize:])
		} else {
			clear(dst)
		}
	})
}

// put stores p at off and answers how many pages were added; the size stays.
func (c *content) put(p []byte, off int64) (added int64) {
	eachPage(off, int64(len(p)), func(at, n int64) {
		src := p[at-off:][:n]
		pg := c.page(at)
		if pg == nil {
			added++
		}
		if n == pageSize && bytes.Equal(src, zeros.data[:]) {
			c.set(at, zeros)
			return
		}
		if pg == nil || pg.by != c.id {
			fresh := &page{by: c.id}
			if pg != nil && n < pageSize {
				fresh.data = pg.data
			}
			c.set(at, fresh)
			pg = fresh
		}
		copy(pg.data[at%pageSize:], src)
	})
	return added
}

// missing counts the pages of a range that are not there.
func (c *content) missing(off, n int64) (pages int64) {
	eachPage(off, n, func(at, _ int64) {
		if c.page(at) == nil {
			pages++
		}
	})
	return pages
}

// zero makes a range read as zeros and answers how many whole pages went; the size stays.
func (c *content) zero(off, n int64) (freed int64) {
	end := off + n
	for i, k := range c.chunks {
		if i*chunkSize >= end || (i+1)*chunkSize <= off {
			continue
		}
		from, to := max(off, i*chunkSize), min(end, (i+1)*chunkSize)
		if to-from == chunkSize {
			freed += k.count()
			delete(c.chunks, i)
			continue
		}
		eachPage(from, to-from, func(at, n int64) {
			switch {
			case c.page(at) == nil:
			case n == pageSize:
				c.set(at, nil)
				freed++
			default:
				c.put(make([]byte, n), at)
			}
		})
	}
	return freed
}

// cut drops everything from size on and answers how many pages went; size stays as it was set.
func (c *content) cut(size int64) (freed int64) {
	return c.zero(size, maxFileSize+pageSize-size)
}

func (c *content) pages() (n int64) {
	for _, k := range c.chunks {
		n += k.count()
	}
	return n
}

func (k *chunk) count() (n int64) {
	for _, p := range k.pages {
		if p != nil {
			n++
		}
	}
	return n
}

func (c *content) page(off int64) *page {
	if k := c.chunks[off/chunkSize]; k != nil {
		return k.pages[off%chunkSize/pageSize]
	}
	return nil
}

func (c *content) set(off int64, p *page) {
	k := c.chunks[off/chunkSize]
	if k == nil || k.by != c.id {
		fresh := &chunk{by: c.id}
		if k != nil {
			fresh.pages = k.pages
		}
		c.chunks[off/chunkSize] = fresh
		k = fresh
	}
	k.pages[off%chunkSize/pageSize] = p
}

// eachPage calls fn for each part of a range that lies within one page.
func eachPage(off, n int64, fn func(at, n int64)) { eachUnit(off, n, pageSize, fn) }

func eachUnit(off, n, unit int64, fn func(at, n int64)) {
	for end := off + n; off < end; {
		k := min(unit-off%unit, end-off)
		fn(off, k)
		off += k
	}
}
