package integration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cofferfs/coffer/internal/disk/disktest"
)

// The model of a run: what every page, length, mode and name was over time, and from when on which of it was promised. Time is counted in
// operations on the disk; an event is one system call.

const page = 4096

// history is one run on one disk.
type history struct {
	disk  *disktest.Memory
	spans []span   // of each event
	calls []string // what each event was, for reports
	byIno map[uint64]*object
	root  *object
}

// span is the operations [start, end) that the disk saw during an event. What it changed may be there after a cut behind start, also much later,
// since writes are handed over later; what it promised holds from end on.
type span struct{ start, end int }

func newHistory(m *disktest.Memory) *history {
	h := &history{disk: m, byIno: map[uint64]*object{}}
	h.event("begin", func(ev int) { h.root = &object{dir: true, born: ev, slots: map[string]*slot{}} })
	return h
}

func (h *history) event(call string, fn func(ev int)) {
	ev := len(h.spans)
	h.spans = append(h.spans, span{h.disk.Ops(), -1})
	h.calls = append(h.calls, call)
	fn(ev)
	h.spans[ev].end = h.disk.Ops()
}

// story tells the events before a cut in which one of the objects that some text names took part.
func (h *history) story(ops int, text string) string {
	var b strings.Builder
	about := regexp.MustCompile(`(file|directory|symlink) \d+`)
	in := about.FindAllString(text, -1)
	for ev, s := range h.spans {
		named := about.FindAllString(h.calls[ev]+fmt.Sprintf(" file %d directory %d symlink %d", ev, ev, ev), -1)
		if s.start < ops && slices.ContainsFunc(named, func(o string) bool { return slices.Contains(in, o) }) {
			fmt.Fprintf(&b, "  event %d, operations %d to %d: %s\n", ev, s.start, s.end, h.calls[ev])
		}
	}
	return b.String()
}

func (h *history) last() int { return len(h.spans) - 1 }

// judged is what a cut is held against: everything up to the first ops operations, after the death of the process if killed. Without a cut
// it is alive, and everything is as the last event left it, handed over or not.
type judged struct {
	*history
	ops    int
	killed bool
	alive  bool
	done   int // the last event that had ended
}

func (h *history) at(ops int, killed bool) *judged {
	j := &judged{history: h, ops: ops, killed: killed}
	for ev, s := range h.spans {
		if s.end <= ops {
			j.done = ev
		}
	}
	return j
}

// now is what the live vault is held against.
func (h *history) now() *judged {
	j := h.at(h.disk.Ops(), true)
	j.alive = true
	return j
}

// promise says that everything up to an event survives, a loss of power too unless it is only for the death of the process.
type promise struct {
	ev      int
	given   int // operations after which it holds
	byClose bool
}

type promises []promise

// upTo answers the last event that a cut may not take back, -1 where there is none.
func (p promises) upTo(j *judged) int {
	if j.alive {
		return j.done
	}
	ev := -1
	for _, x := range p {
		if x.given <= j.ops && (j.killed || !x.byClose) {
			ev = max(ev, x.ev)
		}
	}
	return ev
}

// versions is a value over time.
type versions[T any] []version[T]

type version[T any] struct {
	ev int
	v  T
}

func (vs *versions[T]) set(ev int, v T) { *vs = append(*vs, version[T]{ev, v}) }

// now answers the newest value.
func (vs versions[T]) now() T { return vs[len(vs)-1].v }

// allowed answers what may be found: what was promised, and what came later.
func (vs versions[T]) allowed(j *judged, promised int) (all []T) {
	from := 0
	for i, x := range vs {
		if x.ev <= promised {
			from = i
		}
	}
	for i, x := range vs[from:] {
		if i == 0 || j.spans[x.ev].start < j.ops {
			all = append(all, x.v)
		}
	}
	return all
}

// object is a file, directory or symlink, for as long as the run.
type object struct {
	born  int
	ino   uint64
	node  uint64         // 0: the kernel has forgotten it
	known map[*slot]bool // names that the kernel knows

	dir    bool
	slots  map[string]*slot // of a directory
	target string           // of a symlink
	mode   versions[uint32] // of a file or directory
	attrs  promises         // of mode

	// A file's:
	content []byte
	size    versions[int64]
	pages   map[int64]versions[[]byte] // zero-padded; nil are zeros
	data    promises                   // of size and pages
	opens   int

	links versions[int]
	moves []move // every name that it got or lost
}

type move struct {
	slot *slot
	ev   int
	lost bool
}

// slot is a name in a directory and the object it is of, over time; nil is none.
type slot struct {
	dir  *object
	name string
	held versions[*object]
	promises
	exchanges []int // events
}

func (o *object) file() bool { return o.pages != nil }

func (o *object) slot(name string) *slot {
	s := o.slots[name]
	if s == nil {
		s = &slot{dir: o, name: name}
		s.held.set(o.born, nil)
		o.slots[name] = s
	}
	return s
}

func (o *object) know(s *slot) {
	if o.known == nil {
		o.known = map[*slot]bool{}
	}
	o.known[s] = true
}

func (o *object) forget() { o.node, o.known = 0, nil }

// names answers the slots that o has now.
func (o *object) names() (all []*slot) {
	for _, m := range o.moves {
		if m.slot.held.now() == o && !slices.Contains(all, m.slot) {
			all = append(all, m.slot)
		}
	}
	return all
}

// put gives names new objects by one event.
func (h *history) put(ev int, changes map[*slot]*object) {
	delta := map[*object]int{}
	for s, o := range changes {
		old := s.held.now()
		s.held.set(ev, o)
		if old != nil {
			delta[old]--
			old.moves = append(old.moves, move{s, ev, true})
		}
		if o != nil {
			delta[o]++
			o.know(s)
			o.moves = append(o.moves, move{s, ev, false})
		}
	}
	for o, n := range delta {
		links := n
		if len(o.links) > 0 {
			links += o.links.now()
		}
		o.links.set(ev, links)
	}
}

// newFile answers a file that is empty.
func (h *history) newFile(ev int, ino uint64) *object {
	o := &object{born: ev, ino: ino, pages: map[int64]versions[[]byte]{}}
	o.size.set(ev, 0)
	h.byIno[ino] = o
	return o
}

// become notes the content that a file has by an event, which changed bytes from off on, n of them at most.
func (o *object) become(ev int, content []byte, off, n int64) {
	o.content = content
	if int64(len(content)) != o.size.now() {
		o.size.set(ev, int64(len(content)))
	}
	for p := off / page; p*page < off+n; p++ {
		vs := o.pages[p]
		if vs == nil {
			vs.set(o.born, nil)
		}
		var now []byte
		if at := p * page; at < int64(len(content)) {
			now = make([]byte, page)
			copy(now, content[at:])
		}
		vs.set(ev, now)
		o.pages[p] = vs
	}
}

// synced notes the promise of an fsync that ended after some operations.
func (h *history) synced(o *object, ev, given int, dataOnly bool) {
	o.data = append(o.data, promise{ev: ev, given: given})
	if !dataOnly {
		o.attrs = append(o.attrs, promise{ev: ev, given: given})
	}
	h.syncedLinks(o, given)
}

// syncedLinks: the names of a file that the kernel knows come with its fsync, and those of the directories above. That names are gone, and names
// that the kernel has forgotten together with the file, only the fsync of their directory promises.
func (h *history) syncedLinks(o *object, given int) {
	for _, m := range o.moves {
		if m.lost || !o.known[m.slot] {
			continue
		}
		m.slot.promises = append(m.slot.promises, promise{ev: m.ev, given: given})
	}
	for _, s := range o.names() {
		h.syncedLinks(s.dir, given)
	}
}

func (h *history) syncedDir(d *object, ev, given int) {
	d.attrs = append(d.attrs, promise{ev: ev, given: given})
	for _, s := range d.slots {
		s.promises = append(s.promises, promise{ev: ev, given: given})
	}
	h.syncedLinks(d, given)
}

// promised answers the last event of a name that a cut may not take back. A death of the process takes no name back.
func (s *slot) promised(j *judged) int {
	if j.killed {
		return j.done
	}
	return s.upTo(j)
}

// mustBe reports whether an object has to be found, under whatever name: some name was promised, and it was never without one since. A file of
// which no data was promised yields to the one that it was to replace.
func (o *object) mustBe(j *judged) bool {
	if o.file() && o.data.upTo(j) < 0 {
		return false
	}
	for _, m := range o.moves {
		promised := m.slot.promised(j)
		var held *object
		for _, v := range m.slot.held {
			if v.ev <= promised {
				held = v.v
			}
		}
		if held == o && !slices.Contains(o.links.allowed(j, promised), 0) {
			return true
		}
	}
	return false
}

// dirty reports whether a cut may have met changes of the file under way, or a removal of its last name that may come back.
func (o *object) dirty(j *judged) bool {
	for _, v := range o.links {
		if v.v == 0 && j.spans[v.ev].start < j.ops {
			return true
		}
	}
	promised := o.data.upTo(j)
	later := func(ev int) bool { return ev > promised && j.spans[ev].start < j.ops }
	for _, v := range o.size {
		if later(v.ev) {
			return true
		}
	}
	for _, vs := range o.pages {
		for _, v := range vs {
			if later(v.ev) {
				return true
			}
		}
	}
	return false
}
