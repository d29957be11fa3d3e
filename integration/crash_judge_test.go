package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// needsJournal has the tests judge what only a journal can promise. Without it, a file with changes that no fsync had acknowledged when the
// power went, or the daemon was killed, may answer EIO; and an exchange of names may leave one of the two under a name of its own.
// Wrong bytes, lost names and damage to other files are judged whatever it says.
const needsJournal = true

// judge looks at a vault after a crash and says what is wrong with it.
type judge struct {
	*judged
	k        *kernel
	lenient  bool // pass over what needs a journal
	problems []string
	excused  int // problems that lenient passed over
	found    map[*object]int
}

func (j *judge) wrong(format string, args ...any) {
	j.problems = append(j.problems, fmt.Sprintf(format, args...))
}

// excuse passes over a problem of a file with changes under way.
func (j *judge) excuse(o *object, format string, args ...any) {
	if j.lenient && o.dirty(j.judged) {
		j.excused++
		return
	}
	j.wrong(format, args...)
}

// look walks the tree and compares everything in it.
func (j *judge) look() {
	j.found = map[*object]int{}
	nlink := map[*object]uint32{}
	j.walk(fuse.FUSE_ROOT_ID, j.root, "", nlink)
	for _, o := range j.byIno {
		if j.found[o] == 0 && o.mustBe(j.judged) {
			j.excuse(o, "%s is gone, it had a name that was promised and was never without one", o)
		}
		// More than there are may be said while a directory was not listed in which a name lost to another.
		if n := j.found[o]; n > 0 && !o.dir && uint32(n) > nlink[o] {
			j.wrong("%s has %d names and says %d", o, n, nlink[o])
		}
	}
	slices.Sort(j.problems)
}

func (s *slot) String() string { return fmt.Sprintf("%q in %s", short(s.name), s.dir) }

func (o *object) String() string {
	if o == nil {
		return "nothing"
	}
	kind := "file"
	switch {
	case o.dir:
		kind = "directory"
	case o.target != "":
		kind = "symlink"
	}
	return fmt.Sprintf("%s %d", kind, o.born)
}

func (j *judge) walk(node uint64, d *object, path string, nlink map[*object]uint32) {
	names, err := j.k.list(node)
	if err != nil {
		j.wrong("list of %q: %v", path, err)
		return
	}
	held := map[string]*object{}
	for _, name := range names {
		child, a, err := j.k.lookup(node, name)
		full := path + "/" + short(name)
		if err != nil {
			j.wrong("%q is listed, lookup says %v", full, err)
			continue
		}
		o := j.byIno[a.Ino]
		if o == nil {
			j.wrong("%q is nothing that was ever made", full)
			continue
		}
		held[name] = o
		j.found[o]++
		nlink[o] = a.Nlink
		j.object(child, a, o, full)
		if o.dir && j.found[o] == 1 {
			j.walk(child, o, full, nlink)
		}
		j.k.forget(child)
	}
	for name := range held {
		if d.slots[name] == nil && !(j.lenient && strings.HasPrefix(name, ".coffer-exchange-")) {
			j.wrong("a name %q came from nowhere in %q", short(name), path)
		}
	}
	for name, s := range d.slots {
		o := held[name]
		promised := s.promised(j.judged)
		allowed := s.held.allowed(j.judged, promised)
		switch {
		case slices.Contains(allowed, o):
		case o == nil && j.lenient && s.exchanged(j.judged):
			j.excused++
		default:
			j.wrong("%s at %q is %s, not one of %s since event %d of %d", s, path, o, allowed, promised, j.done)
		}
	}
}

func short(name string) string {
	if len(name) > 20 {
		return fmt.Sprintf("%s…%d", name[:8], len(name))
	}
	return name
}

// exchanged reports whether an exchange of this name was under way.
func (s *slot) exchanged(j *judged) bool {
	for _, m := range s.exchanges {
		if span := j.spans[m]; span.start < j.ops && (span.end > j.ops || !j.killed) {
			return true
		}
	}
	return false
}

func (j *judge) object(node uint64, a fuse.Attr, o *object, path string) {
	if modes := o.mode.allowed(j.judged, o.attrs.upTo(j.judged)); o.target == "" && !slices.Contains(modes, a.Mode&0o7777) {
		j.wrong("%q, %s, has mode %o, not one of %o", path, o, a.Mode, modes)
	}
	switch {
	case o.dir:
		if a.Mode&unix.S_IFMT != unix.S_IFDIR {
			j.wrong("%q has mode %o", path, a.Mode)
		}
	case o.target != "":
		if target, err := j.k.readlink(node); err != nil || target != o.target || a.Size != uint64(len(target)) {
			j.wrong("target of %q: %d of %d bytes, size %d, %v", path, len(target), len(o.target), a.Size, err)
		}
	default:
		j.file(node, a, o, path)
	}
}

func (j *judge) file(node uint64, a fuse.Attr, o *object, path string) {
	promised := o.data.upTo(j.judged)
	got, err := j.readAll(node, int64(a.Size))
	if err != nil {
		j.excuse(o, "%q, %s, of %d bytes, cannot be read: %v", path, o, a.Size, err)
		return
	}
	if len(got) != int(a.Size) {
		j.wrong("%q, %s: size %d, read %d bytes", path, o, a.Size, len(got))
	}
	if sizes := o.size.allowed(j.judged, promised); !slices.Contains(sizes, int64(a.Size)) {
		if a.Size == 0 && promised >= 0 {
			j.excuse(o, "%q, %s: empty, it had one of %d bytes", path, o, sizes) // a torn header looks like none
			return
		}
		j.wrong("%q, %s: size %d, read %d bytes, not one of %d", path, o, a.Size, len(got), sizes)
	}
	for off := int64(0); off < int64(len(got)); off += page {
		have := got[off:min(off+page, int64(len(got)))]
		allowed := [][]byte{nil}
		if vs := o.pages[off/page]; vs != nil {
			allowed = vs.allowed(j.judged, promised)
		}
		if !slices.ContainsFunc(allowed, func(v []byte) bool { return samePage(have, v) }) {
			j.wrong("%q, %s: page at %d of %d bytes is none of %d versions since event %d, but %s",
				path, o, off, a.Size, len(allowed), promised, o.which(have, off))
		}
	}
}

// samePage compares part of a page with a version of it; nil are zeros.
func samePage(have, version []byte) bool {
	if version == nil {
		return bytes.Count(have, []byte{0}) == len(have)
	}
	return bytes.Equal(have, version[:len(have)])
}

// which names the version that a page has.
func (o *object) which(have []byte, off int64) string {
	for _, v := range o.pages[off/page] {
		if samePage(have, v.v) {
			return fmt.Sprintf("of event %d", v.ev)
		}
	}
	return "none at all"
}

func (j *judge) readAll(node uint64, size int64) (all []byte, err error) {
	fh, err := j.k.open(node, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	for off := int64(0); off < size; {
		b, err := j.k.read(node, fh, off, int(min(128<<10, size-off)))
		if err != nil || len(b) == 0 {
			_ = j.k.close(node, fh, unix.O_RDONLY)
			return all, err
		}
		all = append(all, b...)
		off += int64(len(b))
	}
	return all, j.k.close(node, fh, unix.O_RDONLY)
}

// use writes to some of what is left, as an application would that goes on: what was found must work.
func (j *judge) use(rng *rand.Rand) {
	j.useIn(fuse.FUSE_ROOT_ID, rng)
}

func (j *judge) useIn(dir uint64, rng *rand.Rand) {
	j.each(dir, func(_ uint64, name string, node uint64, a fuse.Attr) {
		o := j.byIno[a.Ino]
		if o != nil && o.dir {
			j.useIn(node, rng)
		}
		if o == nil || !o.file() || j.lenient && o.dirty(j.judged) || rng.IntN(2) == 0 {
			return
		}
		data := bytes.Repeat([]byte("recovered "), 1+rng.IntN(1000))
		off := rng.Int64N(int64(a.Size) + page)
		fh, err := j.k.open(node, unix.O_RDWR)
		if err == nil {
			err = j.k.write(node, fh, data, off)
		}
		if err == nil {
			err = j.k.fsync(node, fh, false)
		}
		var got []byte
		if err == nil {
			got, err = j.k.read(node, fh, off, len(data))
		}
		if err == nil && !bytes.Equal(got, data) {
			j.wrong("%q gives back something else than was written to it after the crash", short(name))
		}
		if err != nil {
			j.wrong("%q cannot be written after the crash: %v", short(name), err)
			return
		}
		if err := j.k.close(node, fh, unix.O_RDWR); err != nil {
			j.wrong("%q cannot be closed after the crash: %v", short(name), err)
		}
	})
}

// clear is rm -r of everything.
func (j *judge) clear() {
	var remove func(dir uint64)
	remove = func(dir uint64) {
		j.each(dir, func(dir uint64, name string, node uint64, a fuse.Attr) {
			var err error
			if a.Mode&unix.S_IFMT == unix.S_IFDIR {
				remove(node)
				err = j.k.rmdir(dir, name)
			} else {
				err = j.k.unlink(dir, name)
			}
			if err != nil {
				j.wrong("%q cannot be removed: %v", short(name), err)
			}
		})
	}
	remove(fuse.FUSE_ROOT_ID)
	if names, err := j.k.list(fuse.FUSE_ROOT_ID); err != nil || len(names) > 0 {
		j.wrong("%d names are left, %v", len(names), err)
	}
}

// each calls fn for the names in a directory, and for those below only where fn does.
func (j *judge) each(dir uint64, fn func(dir uint64, name string, node uint64, a fuse.Attr)) {
	names, err := j.k.list(dir)
	if err != nil {
		j.wrong("list: %v", err)
	}
	for _, name := range names {
		node, a, err := j.k.lookup(dir, name)
		if err != nil {
			j.wrong("lookup of %q: %v", short(name), err)
			continue
		}
		fn(dir, name, node, a)
		j.k.forget(node)
	}
}
