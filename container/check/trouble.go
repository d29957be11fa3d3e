package check

import "strings"

// fate is what Repair does about something.
type fate int

const (
	damaged   fate = iota // what is left of a container takes its name
	duplicate             // the older of two files under one id gets an id of its own
	misplaced             // the container of another object: a copy goes to lost+found
	stray                 // a name that was sealed elsewhere: to lost+found, if it can be told what it is
	nameless              // an object that is known and whose long name is lost: to lost+found
	hopeless              // nothing
)

// trouble is something that Repair looks at.
type trouble struct {
	what   fate
	object *object
	first  seen   // of a duplicate
	why    string // of a hopeless one
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

// tempPrefix begins the plain names of files that a repair builds; 16 hexadecimal digits follow.
const tempPrefix = ".coffer-repair-"

func isTemp(name string) bool {
	return len(name) == len(tempPrefix)+16 && strings.HasPrefix(name, tempPrefix)
}
