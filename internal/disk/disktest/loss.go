package disktest

import (
	"fmt"
	"math/rand/v2"
)

// Loss says what a cut does to everything that no sync made stable. What was synced always survives: Datasync keeps data and length, Sync of a
// file the attributes too, Sync of a directory its names, SyncAll everything. As on ext4 a length takes the attributes of its time
// along, but unlike there the sync of a file never keeps a name.
type Loss struct {
	Data  DataLoss
	Names NameLoss
	// Alive is not a cut but the death of the process: everything is there, and what was not stable still is not, so that a cut
	// that follows may take it.
	Alive bool
}

// DataLoss is about the data, lengths and attributes of each object.
type DataLoss uint8

const (
	DropData   DataLoss = iota // none
	KeepData                   // all
	Sectors512                 // per 512 bytes what some number of the writes to them left; lengths, cuts and holes up to some point
	Sectors4K                  // the same per 4 KiB
	TornPrefix                 // all up to some point in the order of all changes on the disk, where a write may be torn
	SizesAhead                 // lengths, cuts and holes all, new data none: it reads as zeros, or as what was there
)

// NameLoss is about names: made, linked, moved and removed. A rename is one change, as on every host with a journal. A change is kept only with
// those it builds on: earlier ones in the same directories or of the same object, and among moves of directories all earlier ones.
type NameLoss uint8

const (
	DropNames        NameLoss = iota // none
	KeepNames                        // all
	NamesInOrder                     // all up to some point, never before one that is stable; the same point as that of TornPrefix
	NamesByDirectory                 // of each directory all up to some point
)

// The losses that every promise should be held against.
var (
	Killed           = Loss{Data: KeepData, Names: KeepNames, Alive: true}
	LoseAll          = Loss{Data: DropData, Names: DropNames}
	LoseNothing      = Loss{Data: KeepData, Names: KeepNames}
	LoseSectors512   = Loss{Data: Sectors512, Names: NamesByDirectory}
	LoseSectors4K    = Loss{Data: Sectors4K, Names: NamesInOrder}
	LoseTail         = Loss{Data: TornPrefix, Names: NamesInOrder}
	LoseDataNotSizes = Loss{Data: SizesAhead, Names: KeepNames}
	LoseNames        = Loss{Data: KeepData, Names: NamesByDirectory}
)

// PowerCuts are all of these but Killed.
func PowerCuts() []Loss {
	return []Loss{LoseAll, LoseNothing, LoseSectors512, LoseSectors4K, LoseTail, LoseDataNotSizes, LoseNames}
}

// Chance answers whether what is left hangs on the rng: else all cuts of one moment leave the same.
func (l Loss) Chance() bool {
	if l.Alive {
		return false
	}
	return l.Data == Sectors512 || l.Data == Sectors4K || l.Data == TornPrefix || l.Names == NamesInOrder || l.Names == NamesByDirectory
}

func (l Loss) String() string {
	if l.Alive {
		return "killed"
	}
	data := []string{"no data", "all data", "512-byte sectors", "4-KiB sectors", "torn prefix", "sizes ahead"}
	names := []string{"no names", "all names", "names in order", "names by directory"}
	return fmt.Sprintf("%s, %s", data[l.Data], names[l.Names])
}

// Cut answers the disk as a loss of power or the death of the process leaves it now. m goes on, independent of it. The same rng gives the
// same answer.
func (m *Memory) Cut(l Loss, rng *rand.Rand) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cut(m.s.clone(), l, rng)
}

func (m *Memory) cut(s *state, l Loss, rng *rand.Rand) *Memory {
	if l.Alive {
		s.mount()
		s.sweep(nil)
	} else {
		s.cut(l, rng)
	}
	return &Memory{s: s, clock: m.clock, open: map[uint64]int{}}
}
