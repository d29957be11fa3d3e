package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/internal/disk"
)

// configDir in the vault's root is no part of the tree.
const configDir = ".coffer"

// place is a directory of the walk.
type place struct {
	id   keys.ObjectID
	up   *place // nil: the root, or a directory in it that is known by its name alone
	name string // plain; "" where nobody knows it
	host string
}

// plainPath and hostPath are paths below the root. They are put together when they are asked for: those of a deep tree are long.
func (p *place) plainPath() string { return strings.Join(p.names(plainName), "/") }
func (p *place) hostPath() string  { return strings.Join(p.names(hostName), "/") }

func plainName(p *place) string { return p.name }
func hostName(p *place) string  { return p.host }

// names are those of the directories from the root's child down to p, as far as they are known.
func (p *place) names(of func(p *place) string) (all []string) {
	for ; p != nil; p = p.up {
		if name := of(p); name != "" {
			all = append(all, name)
		}
	}
	slices.Reverse(all)
	return all
}

// within reports whether p is at or below a plain name of the root.
func (p *place) within(name string) bool {
	for p.up != nil && p.up.up != nil {
		p = p.up
	}
	return p.name == name
}

// object is a host object with an authentic name.
type object struct {
	at   *place
	host string // name in its directory
	link names.Link
	st   unix.Stat_t
	// losers are older links under the same plain name.
	losers []*object
}

func (o *object) plainPath() string { return below(o.at.plainPath(), o.link.Name) }
func (o *object) hostPath() string  { return below(o.at.hostPath(), o.host) }

// found starts a finding about an object.
func (o *object) finding(kind Kind, format string, args ...any) Finding {
	return Finding{Kind: kind, Path: o.plainPath(), Host: o.hostPath(), What: fmt.Sprintf(format, args...)}
}

// seen is the first object met under an id.
type seen struct {
	at       *place
	name     string
	dev, ino uint64
	object   *object // kept for a repair only
}

// directory checks the names of one directory and what they stand for, and answers the subdirectories. An error ends the walk: that of ctx.
func (c *checker) directory(ctx context.Context, fd disk.Dir, at *place) (subdirs []disk.Below[*place], err error) {
	c.count(func(s *Summary) { s.Directories++ })
	var all []*object
	c.sure(func(c *checker) { all = c.names(fd, at) })
	for i, o := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c.object(ctx, fd, o) {
			subdirs = append(subdirs, disk.Below[*place]{Name: o.host, At: o.inside()})
		}
		all[i] = nil
	}
	return subdirs, nil
}

// names answers the objects that show in a directory, and reports what else is there.
func (c *checker) names(fd disk.Dir, at *place) (shown []*object) {
	var all []string
	err := fd.List(func(name string, _ uint64, _ uint8) error {
		if at.up != nil || name != configDir {
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		c.add(Finding{Kind: kindOf(err), Path: at.plainPath(), Host: at.hostPath(), What: fmt.Sprintf("the directory cannot be listed: %v", err)})
		c.unread(&object{at: at}, "a directory that cannot be listed: what is in it was not looked at")
	}
	sidecars := map[string]bool{} // whether an object uses it
	for _, host := range all {
		if names.IsSidecar(host) {
			sidecars[host] = false
		}
	}
	byName := make(map[string][]*object, len(all))
	var order []string
	for _, host := range all {
		if _, sidecar := sidecars[host]; sidecar {
			continue
		}
		if o := c.name(fd, at, host, sidecars); o != nil {
			if byName[o.link.Name] == nil {
				order = append(order, o.link.Name)
			}
			byName[o.link.Name] = append(byName[o.link.Name], o)
		}
	}
	for _, host := range all {
		if used, sidecar := sidecars[host]; sidecar && !used {
			c.orphan(at, host)
		}
	}
	for _, name := range order {
		shown = append(shown, c.winner(fd, byName[name]))
	}
	return shown
}

// orphan reports a sidecar that belongs to no object.
func (c *checker) orphan(at *place, host string) {
	f := Finding{Kind: Foreign, Path: at.plainPath(), Hidden: true, Host: below(at.hostPath(), host), What: "the sidecar of a long name without its object", Hint: "it can be removed"}
	if c.Unclean {
		f.Kind = Leftover
	}
	c.add(f)
}

// name opens one host name and compares it with its object; nil where it shows nothing.
func (c *checker) name(fd disk.Dir, at *place, host string, sidecars map[string]bool) *object {
	o := &object{at: at, host: host}
	report := func(kind Kind, hint, format string, args ...any) {
		c.add(Finding{Kind: kind, Path: at.plainPath(), Hidden: true, Host: o.hostPath(), What: fmt.Sprintf(format, args...), Hint: hint})
	}
	var err error
	o.link, err = c.Codec.Open(at.id, host)
	if errors.Is(err, names.ErrForeign) && !names.HasForm(host) {
		report(Foreign, foreignHint(host), "a foreign object")
		return nil
	}
	if serr := fd.Stat(host, &o.st); serr != nil {
		if !errors.Is(serr, unix.ENOENT) {
			report(kindOf(serr), "", "the object cannot be looked at: %v", serr)
			c.unread(o, "the host cannot look at it")
		}
		return nil
	}
	switch {
	case errors.Is(err, names.ErrForeign):
		report(Damage, "moved from another directory of the host, or its name was changed", "a name that was not sealed in this directory")
		c.trouble(&trouble{what: stray, object: o})
		return nil
	case err != nil:
		report(Damage, "", "%v", err)
		c.lost(o, "its name says nothing that can be used")
		return nil
	}
	if mode := o.st.Mode & unix.S_IFMT; mode != o.link.HostMode() {
		report(Damage, "", "a %s whose host object has mode %o", o.link.Type, mode)
		c.lost(o, "something else stands in its place: look at it, and remove it")
		return nil
	}
	if !o.link.IsLong() {
		return o
	}
	sidecars[names.SidecarName(host)] = true
	if err = c.Codec.ReadLong(fd, at.id, host, &o.link); err == nil {
		return o
	}
	report(kindOf(err), "", "a %s with a long name, and its sidecar cannot be used: %v", o.link.Type, err)
	if errors.Is(err, names.ErrSidecar) {
		c.trouble(&trouble{what: nameless, object: o})
	} else {
		c.unread(o, "the host cannot read its sidecar")
	}
	return nil
}

// winner picks the link that shows, as a mount does (FORMAT.md 8.1), and reports the others.
func (c *checker) winner(fd disk.Dir, all []*object) *object {
	win, losers := names.Winner(all, func(o *object) names.Link { return o.link }, func(o *object) bool {
		return c.mayLackHeader(o) && c.Engine.LacksHeader(fd, o.host, o.link.ID)
	})
	win.losers = losers
	for _, o := range losers {
		if !c.Live.made(win.link) { // else it is removed as soon as the winner is durable
			c.add(o.finding(Leftover, "an older link under a name that another object took over; hidden until the next use of the name removes it"))
		}
	}
	return win
}

// mayLackHeader reports whether an unclean session may have left the container of o without its header.
func (c *Config) mayLackHeader(o *object) bool {
	return o.link.Flags.MayLackHeader(o.link.Seq, c.UncleanSeq)
}
