package check

import "strings"

// fate is what Repair does about something.
type fate int

// They are in the order in which Repair takes them: what gets a place of its own in its own directory comes before what is to find one.
const (
	leftover   fate = iota // of an interrupted repair: removed
	unfinished             // a header or a length that an unclean session left: put right
	damaged                // what is left of a file takes its name
	duplicate              // the older of two files under one id gets an id of its own
	nameless               // an object that is known and whose long name is lost: to lost+found
	stray                  // a name that was sealed elsewhere: to lost+found, if it can be told what it is
	misplaced              // the container of another object: a copy goes to lost+found
	spoiled                // extended attributes that do not open: removed
	hopeless               // nothing
)

// trouble is something that Repair looks at.
type trouble struct {
	what   fate
	object *object
	first  seen     // of a duplicate
	why    string   // of a hopeless one
	attrs  []string // host names of spoiled ones
}

// trouble notes something for Repair.
func (c *checker) trouble(t *trouble) {
	if c.troubles == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	*c.troubles = append(*c.troubles, t)
}

// lost notes something that no repair can help.
func (c *checker) lost(o *object, why string) {
	c.trouble(&trouble{what: hopeless, object: o, why: why})
}

// unread is lost where the host refused a look: there may be ids that nobody saw.
func (c *checker) unread(o *object, why string) {
	c.partial = true
	c.lost(o, why)
}

// tempPrefix begins the plain names of files that a repair builds; 16 hexadecimal digits follow.
const tempPrefix = ".coffer-repair-"

func isTemp(name string) bool {
	return len(name) == len(tempPrefix)+16 && strings.HasPrefix(name, tempPrefix)
}
