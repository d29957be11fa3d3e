package redo

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/journal"
)

// Damage is what a damaged journal costs: transactions that had been durable are not delivered.
type Damage struct {
	Log   journal.Log
	Files []LostFile // that authentic transactions behind the damage name; there may be others
}

// LostFile is a file that lacks what the journal lost, unless it had been brought to its place before.
type LostFile struct {
	ID           keys.ObjectID
	Path         []string // sealed host names when that was written; empty: not known
	Plain        string   // the same in plain; a long name, which is not in them, is as on the host
	Transactions int
}

func (d *Damage) String() string {
	why := "transactions that had been durable are lost"
	if d.Log.Cut && !d.Log.Lost {
		why = "a piece of it was cut, or its beginning is lost: there may have been more"
	}
	return fmt.Sprintf("the journal is damaged: %s behind the %d that are whole", why, d.Log.Transactions)
}

// openJournal opens the journal.
func (c *Config) openJournal() (*journal.Reader, error) {
	j := c.Journal
	j.Salvage = c.Salvage
	return journal.Open(j)
}

// damage answers what is wrong with a journal, nil where that is nothing.
func (c *Config) damage(r *journal.Reader, x *index) (*Damage, error) {
	if !x.log.Damaged() {
		return nil, nil
	}
	d := &Damage{Log: x.log}
	at := map[keys.ObjectID]int{}
	err := r.Behind(func(head []byte) {
		h, err := Parse(head)
		if err != nil {
			return
		}
		i, known := at[h.ID]
		if !known {
			i = len(d.Files)
			at[h.ID] = i
			d.Files = append(d.Files, LostFile{ID: h.ID})
		}
		d.Files[i].Transactions++
		if len(h.Path) > 0 {
			d.Files[i].Path = h.Path
		}
	})
	for i := range d.Files {
		d.Files[i].Plain = c.plain(d.Files[i].Path)
	}
	return d, err
}

// plain opens the names of a path as far as that goes.
func (c *Config) plain(path []string) string {
	all := slices.Clone(path)
	for i, id := 0, c.RootID; i < len(all); i++ {
		l, err := c.Names.Open(id, all[i])
		if err != nil {
			break
		}
		if id = l.ID; !l.IsLong() {
			all[i] = l.Name
		}
	}
	return strings.Join(all, "/")
}
