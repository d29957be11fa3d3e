package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/xattrs"
	"github.com/cofferfs/coffer/internal/disk"
)

// Config says what a check works on. Functions may be called concurrently.
type Config struct {
	Root   disk.Dir // the vault's directory on the host; stays the caller's
	RootID keys.ObjectID
	Codec  *names.Codec
	Attrs  *xattrs.Codec
	Engine *container.Engine

	// UncleanSeq and UncleanTime tell what an unclean session may have made and touched: those of package vault.
	UncleanSeq  func(seq uint64) bool
	UncleanTime func(ctime unix.Timespec) bool
	Unclean     bool  // there was such a session
	Live        *Live // for a vault that is in use; nil: nobody else has it open

	Found    func(Finding) // called one at a time; may be nil
	Progress *Progress     // may be nil
}

// checker is one run of Verify.
type checker struct {
	Config
	report
	*walked
	jobs jobs
	// troubles collects what Repair works on; nil where nothing is to be repaired.
	troubles *[]*trouble
	doubts   doubts // of a vault that is in use
}

// Verify goes through the vault. The error is that of ctx; whatever else goes wrong is a finding.
func Verify(ctx context.Context, cfg Config) (Summary, error) {
	return verify(ctx, cfg, new(walked), nil)
}

func verify(ctx context.Context, cfg Config, w *walked, troubles *[]*trouble) (Summary, error) {
	if cfg.Progress == nil {
		cfg.Progress = new(Progress)
	}
	w.ids, w.more = map[keys.ObjectID]seen{}, map[keys.ObjectID][]*object{}
	c := &checker{Config: cfg, report: report{found: cfg.Found}, walked: w, jobs: newJobs(), troubles: troubles}
	root := &place{id: cfg.RootID}
	var st unix.Stat_t
	if err := cfg.Root.StatSelf(&st); err == nil {
		c.ids[cfg.RootID] = seen{at: root, dev: st.Dev, ino: st.Ino}
	}
	err := disk.Walk(cfg.Root, root, func(d disk.Dir, at *place, err error) ([]disk.Below[*place], error) { return c.enter(ctx, d, at, err) })
	c.jobs.Wait()
	c.resolveDoubts(ctx, 1)
	if err == nil {
		err = ctx.Err() // which a job may have met
	}
	return c.sum, err
}

// jobs runs a bounded number of functions beside the walk.
type jobs struct {
	*sync.WaitGroup
	limit chan struct{}
}

// newJobs allows more of them than processors: each waits for the host most of the time.
func newJobs() jobs { return jobs{new(sync.WaitGroup), make(chan struct{}, 2*runtime.GOMAXPROCS(0))} }

func (j *jobs) run(f func()) {
	j.limit <- struct{}{}
	j.Go(func() {
		defer func() { <-j.limit }()
		f()
	})
}

// kindOf tells damage from what this process may not see.
func kindOf(err error) Kind {
	for _, is := range []error{fs.ErrPermission, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, is) {
			return Unchecked
		}
	}
	return Damage
}

// object checks what a name that shows stands for, and reports whether it is a directory to go into.
func (c *checker) object(ctx context.Context, fd disk.Dir, o *object) bool {
	c.Progress.Objects.Add(1)
	c.count(func(s *Summary) { s.Objects++ })
	switch {
	case isTemp(o.link.Name):
		c.add(o.finding(Leftover, "a file that an interrupted repair was building"))
		c.trouble(&trouble{what: leftover, object: o})
		return false
	case isExchange(o.link.Name) && !c.Live.made(o.link):
		c.add(o.finding(Leftover, "a name that an interrupted exchange of two names left"))
	}
	first, again := c.ids[o.link.ID]
	switch {
	case !again:
		c.meet(o)
	case first.dev == o.st.Dev && first.ino == o.st.Ino:
		if c.troubles != nil {
			c.more[o.link.ID] = append(c.more[o.link.ID], o)
		}
		return false // one more name of what was looked at
	default:
		if c.troubles != nil {
			c.more[o.link.ID] = append(c.more[o.link.ID], o)
		}
		f := o.finding(Damage, "a second %s under the id of %q: a mount refuses one of them", o.link.Type, below(first.at.plainPath(), first.name))
		f.Hint = "one is a copy, or the other's state of earlier"
		c.add(f)
		c.trouble(&trouble{what: duplicate, object: o, first: first})
	}
	if o.link.Type == names.Dir {
		c.attributes(fd, o)
		first = c.ids[o.link.ID]
		return first.at == o.at && first.name == o.link.Name // in the second directory of an id nothing can be reached
	}
	if c.only != "" && !o.at.within(c.only) {
		return false
	}
	c.attributes(fd, o)
	switch {
	case o.link.IsContainer():
		c.container(ctx, fd, o)
	case o.link.Type == names.Symlink:
		target, err := fd.Readlink(o.host)
		if err == nil {
			_, err = c.Codec.OpenTarget(o.link.ID, target)
		}
		if err != nil && !c.Live.gone(err) {
			c.add(o.finding(kindOf(err), "the target of the symlink cannot be read: %v", err))
			c.lost(o, "the target of a symlink is lost: remove it")
		}
	}
	return false
}

// meet enters the first object under an id.
func (c *checker) meet(o *object) {
	x := seen{at: o.at, name: o.link.Name, dev: o.st.Dev, ino: o.st.Ino}
	if c.troubles != nil {
		x.object = o
	}
	c.ids[o.link.ID] = x
}

// isExchange reports whether a plain name is the one that package dirs gives while it exchanges two.
func isExchange(name string) bool {
	const prefix = ".coffer-exchange-"
	return len(name) == len(prefix)+16 && strings.HasPrefix(name, prefix)
}

// enter goes into a directory, or says why it could not be opened, and answers its subdirectories.
func (c *checker) enter(ctx context.Context, fd disk.Dir, at *place, err error) ([]disk.Below[*place], error) {
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case c.Live.gone(err):
		return nil, nil
	case err != nil:
		o := &object{at: at.up, host: at.host, link: names.Link{Type: names.Dir, ID: at.id, Name: at.name}}
		c.add(o.finding(kindOf(err), "the directory cannot be opened: %v", err))
		c.unread(o, "a directory that cannot be opened: what is in it was not looked at")
		return nil, nil
	}
	if c.troubles != nil || at.up == nil {
		c.places = append(c.places, at)
	}
	return c.directory(ctx, fd, at)
}

// attributes checks the sealed extended attributes of an object.
func (c *checker) attributes(fd disk.Dir, o *object) {
	if c.Attrs != nil {
		c.sure(func(c *checker) { c.lookAtAttributes(fd, o) })
	}
}

func (c *checker) lookAtAttributes(fd disk.Dir, o *object) {
	x := xattrs.Object{ID: o.link.ID, Trusted: o.link.Type != names.File && o.link.Type != names.Dir}
	var spoiledBy []string
	err := c.Attrs.Check(fd.Xattrs(o.host), x, func(host string, err error) {
		c.add(o.finding(Damage, "extended attribute %s of the host: %v", host, err))
		if errors.Is(err, xattrs.ErrBadAttr) || errors.Is(err, xattrs.ErrForeign) {
			spoiledBy = append(spoiledBy, host)
			return
		}
		c.lost(o, "an extended attribute cannot be read: remove or set it anew")
	})
	if len(spoiledBy) > 0 {
		c.trouble(&trouble{what: spoiled, object: o, attrs: spoiledBy})
	}
	switch {
	case err == nil, errors.Is(err, unix.EOPNOTSUPP), c.Live.gone(err):
	case errors.Is(err, fs.ErrPermission):
		c.add(o.finding(Unchecked, "extended attributes: %v", err))
	default:
		c.add(o.finding(Damage, "extended attributes: %v", err))
		c.lost(o, "its extended attributes cannot be read")
	}
}

// container opens a container and has a job look at its content.
func (c *checker) container(ctx context.Context, fd disk.Dir, o *object) {
	h, err := fd.Open(o.host, disk.ReadOnly)
	if c.Live.gone(err) {
		return
	}
	if err != nil {
		c.add(o.finding(kindOf(err), "the host file cannot be opened: %v", err))
		c.lost(o, "the host cannot open it")
		return
	}
	c.jobs.run(func() { c.content(ctx, h, o) })
}

// looked is what one look at a container came to. Where its header cannot be used, err says so and nothing else counts.
type looked struct {
	container.Checked
	geo *container.Geometry
	err error
}

func (x *looked) good() bool { return x.err == nil && x.Good() }

// content checks a container; h is its own to close.
func (c *checker) content(ctx context.Context, h disk.File, o *object) {
	x := c.look(ctx, h, o, nil)
	if !x.good() && c.Live != nil && ctx.Err() == nil {
		c.doubt(ctx, &doubt{o: o, h: h, looked: x})
		return
	}
	h.Close()
	if ctx.Err() == nil { // else the walk says so
		c.judge(o, &x)
	}
}

// look opens a container and checks those ranges of it; nil: all. h stays open.
func (c *checker) look(ctx context.Context, h disk.File, o *object, only []container.LostRange) (x looked) {
	f, err := c.Engine.Open(disk.KeepOpen{File: h}, o.link.ID, container.OpenOptions{ReadOnly: true, Object: objectKind(o.link.Type)})
	if err != nil {
		return looked{err: err}
	}
	defer func() { _ = f.Close() }()
	if x.geo = f.Geometry(); x.geo.ID != o.link.Geometry {
		return looked{err: fmt.Errorf("geometry %v, and %d in its name: %w", x.geo, o.link.Geometry, container.ErrIdentity)}
	}
	if x.Checked, err = f.Verify(ctx, only, func(n int64) { c.Progress.Bytes.Add(n) }); err == nil { // else ctx's
		c.count(func(s *Summary) { s.Bytes += x.Bytes })
	}
	return x
}

// objectKind is what the header of the container of a name of that type says.
func objectKind(typ names.Type) uint8 {
	if typ == names.Symlink {
		return container.ObjectSymlink
	}
	return container.ObjectFile
}

// judge reports what was found in a container.
func (c *checker) judge(o *object, got *looked) {
	if got.err != nil {
		c.headerless(o, got.err)
		return
	}
	unsynced := got.Unsynced && c.mayLackHeader(o)
	for _, l := range got.Lost {
		fi := o.finding(kindOf(l.Err), "%v", l.Err)
		fi.Bytes = &Range{l.From, l.To, got.Size}
		fi.locate(got.geo, l)
		if unsynced && fi.Kind == Damage {
			fi.Kind, fi.Hint = Leftover, "never synced before an unclean end; reads as zeros once the file was opened"
		}
		c.add(fi)
	}
	if got.Length != nil {
		fi := o.finding(kindOf(got.Length), "%v", got.Length)
		if c.UncleanTime(o.st.Ctim) {
			fi.Kind, fi.Hint = Leftover, "put right when the file is opened"
		} else {
			fi.Hint = "a mount refuses all of the file"
		}
		c.add(fi)
	}
	switch {
	case got.Good():
	case len(got.Lost) == 0 && c.UncleanTime(o.st.Ctim):
		c.trouble(&trouble{what: unfinished, object: o})
	default:
		c.trouble(&trouble{what: damaged, object: o})
	}
}

// headerless reports a container whose header cannot be used.
func (c *checker) headerless(o *object, err error) {
	if c.mayLackHeader(o) && container.Headerless(err) {
		c.add(o.finding(Leftover, "a new file that an unclean session left without a header; it reads as empty"))
		c.trouble(&trouble{what: unfinished, object: o})
		return
	}
	f := o.finding(kindOf(err), "%v", err)
	if g, gerr := container.GeometryByID(o.link.Geometry); gerr == nil {
		if size, serr := g.PlainSize(o.st.Size); serr == nil {
			f.Bytes = &Range{0, size, size}
		}
	}
	t := &trouble{what: damaged, object: o}
	switch {
	case errors.Is(err, container.ErrIdentity):
		f.Hint = "two files were swapped, or one was put in the place of another"
		t.what = misplaced
	case errors.Is(err, container.ErrVersion), errors.Is(err, container.ErrFeature):
		f.Hint = "written by a newer coffer, or damaged"
		t.what, t.why = hopeless, "written by a newer coffer"
	}
	c.add(f)
	c.trouble(t)
}

// locate adds where a lost range begins.
func (f *Finding) locate(g *container.Geometry, l container.LostRange) {
	segment := uint64(l.From / int64(g.SegmentSize))
	frame := int(l.From % int64(g.SegmentSize) / int64(g.FrameSize))
	f.Segment, f.Frame = &segment, &frame
}
