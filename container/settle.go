package container

// settleWrites is how many host calls wrote what is brought to the disk at a time.
const settleWrites = 32

// settler is a host file that brings what it has in memory of a range to the disk, and waits until it is there. That makes nothing durable. An error is told once:
// Sync does not tell it again.
type settler interface{ Settle(off, n int64) error }

// unsettled is what was applied since the last checkpoint: the range of the host file in which it lies, and how many host calls wrote it.
type unsettled struct {
	from, to int64
	writes   int64
}

// add notes a host call.
func (u *unsettled) add(off, n int64) {
	if u.writes == 0 {
		u.from = off
	}
	u.from, u.to, u.writes = min(u.from, off), max(u.to, off+n), u.writes+1
}

// settle has the host write what was applied, a few blocks at a time, so that little is left to the sync that follows. A disk that is given thousands of them at once
// has each commit wait behind them. The caller holds hostMu.
func (f *File) settle() error {
	u := f.unsettled
	f.unsettled = unsettled{}
	f.mu.RLock()
	gone := f.abandoned
	f.mu.RUnlock()
	h, ok := f.host.(settler)
	steps := u.writes / settleWrites
	if gone || !ok || steps < 2 {
		return nil
	}
	step := max(roundUp((u.to-u.from)/steps, BlockSize), BlockSize)
	for off := u.from; off < u.to; off += step {
		if err := h.Settle(off, min(step, u.to-off)); err != nil {
			return err
		}
	}
	return nil
}
