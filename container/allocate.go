package container

import "fmt"

// Allocate has the host set aside blocks for the slots of [off, off+n) and for the header, tree nodes and meta blocks above them, so that writing
// there finds room. Nothing else changes: what was a hole is one still. The errors are the host's: ENOSPC, EFBIG, or EOPNOTSUPP where it cannot.
func (f *File) Allocate(off, n int64) error {
	f.commit.Lock()
	defer f.commit.Unlock()
	if err := f.changeable(0); err != nil {
		return err
	}
	if err := f.geo.checkRange(off, n); err != nil || n == 0 {
		return err
	}
	if err := f.eng.applier.prepare(); err != nil {
		return err
	}
	defer f.hostChanged.Store(true)
	g := f.geo
	first := off &^ int64(g.FrameSize-1)
	last := (off + n - 1) &^ int64(g.FrameSize-1)
	group := uint64(first >> g.groupShift)
	// The metadata of every group behind the first lies between the slots.
	blocks := []int64{0, g.groupAddr(group)}
	if group >= headerGroups {
		for level := uint8(1); level <= treeLevels; level++ {
			blocks = append(blocks, g.nodeAddr(level, (group-headerGroups)>>(fanoutShift*uint(level))))
		}
	}
	for _, at := range blocks {
		if err := f.host.Allocate(at, BlockSize); err != nil {
			return fmt.Errorf("container: allocate: %w", err)
		}
	}
	at := g.hostOffset(first)
	if err := f.host.Allocate(at, g.hostOffset(last)+int64(g.FrameSize)-at); err != nil {
		return fmt.Errorf("container: allocate: %w", err)
	}
	return nil
}
