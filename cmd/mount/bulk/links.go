package bulk

import (
	"sync"

	"golang.org/x/sys/unix"
)

// link makes a further name of a file that was copied under its first one. false: it could not, and a copy is to be made.
func (e *Export) link(d *destDir, first *linked, name string) bool {
	<-first.done
	if !first.ok {
		return false
	}
	var a unix.Stat_t
	b, ok, err := d.stat(name)
	if err == nil && ok && b.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false
	}
	if err == nil && ok && unix.Lstat(first.path, &a) == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		e.counters.skipped.Add(1)
		return true
	}
	err = d.place(name, func(temp string) error { return unix.Linkat(unix.AT_FDCWD, first.path, d.fd, temp, 0) })
	if err != nil {
		return false
	}
	e.counters.others.Add(1)
	return true
}

// linkTable knows the files with several names.
type linkTable struct {
	mu    sync.Mutex // guards files
	files map[string]*linked
}

// linked is a file with several names: ok once done is closed says that the first one is there.
type linked struct {
	path string
	done chan struct{}
	ok   bool
}

// claim makes path the first name of an object, or says which is.
func (t *linkTable) claim(object, path string) (l *linked, mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.files[object]; l != nil {
		return l, false
	}
	if t.files == nil {
		t.files = map[string]*linked{}
	}
	l = &linked{path: path, done: make(chan struct{})}
	t.files[object] = l
	return l, true
}

// decide is called once for the first name; l may be nil.
func (l *linked) decide(mine, ok bool) {
	if l != nil && mine {
		l.ok = ok
		close(l.done)
	}
}
