package disk

// mostOpen is how many directories a Walk keeps open of those that it came through.
const mostOpen = 32

// Below is a subdirectory that a Walk is to visit, and what its visitor is to know of it.
type Below[T any] struct {
	Name string
	At   T
}

// Walk calls visit for root, then for each subdirectory that visit asks for, each before its own. d is open for the call and stays Walk's; where a
// directory could not be opened d is nil, and err says why. An error of visit ends the walk and is its answer.
//
// However deep the tree is, only some tens of directories are open at once, and none by a path: what was closed on the way down is opened again from the
// nearest one above that is open. Whoever moves a directory meanwhile has what was left below it be one that could not be opened.
func Walk[T any](root Dir, top T, visit func(d Dir, at T, err error) (below []Below[T], _ error)) error {
	below, err := visit(root, top, nil)
	w := way[T]{{d: root, below: below}}
	for err == nil && len(w) > 0 {
		last := &w[len(w)-1]
		if len(last.below) == 0 {
			w.close(len(w) - 1)
			w = w[:len(w)-1]
			continue
		}
		next := last.below[0]
		last.below = last.below[1:]
		d, oerr := w.open(next.Name)
		if below, err = visit(d, next.At, oerr); oerr == nil {
			w = append(w, level[T]{next.Name, d, below})
			w.close(len(w) - 1 - mostOpen)
		}
	}
	for i := range w {
		w.close(i)
	}
	return err
}

// level is a directory that a Walk is in.
type level[T any] struct {
	name  string
	d     Dir // nil: closed for the time being
	below []Below[T]
}

// way are the directories from the root, which is always open, to where a Walk is.
type way[T any] []level[T]

// close closes the directory of a level, but not that of the root.
func (w way[T]) close(i int) {
	if i > 0 && w[i].d != nil {
		w[i].d.Close()
		w[i].d = nil
	}
}

// open opens a subdirectory of the last level, and what has to be open for that.
func (w way[T]) open(name string) (Dir, error) {
	last := len(w) - 1
	i := last
	for w[i].d == nil {
		i--
	}
	for ; i < last; i++ {
		d, err := w[i].d.OpenDir(w[i+1].name)
		if err != nil {
			return nil, err
		}
		w[i+1].d = d
		w.close(i + 1 - mostOpen)
	}
	return w[last].d.OpenDir(name)
}
