package journal

import "golang.org/x/sys/unix"

// roomy is how many times the room of a whole journal the host has left where a piece is made before it is needed. On one with less the journal takes
// none that it may do without.
const roomy = 4

// spareFew is after how many transactions like the last one half of a piece is to be full, that the next one is made: of large ones a piece takes as long to make as to
// fill.
const spareFew = 4

// prepareSpare has a spare piece, the next one, made in the background once the one in use is half full, or will be after a few more transactions like that of
// the caller, and no other is free, so that nobody waits until the host has it. Each is tried once: one that could not be made is left to the Append that needs it,
// which says so. begin is where that of the caller begins, who holds appending, and n its bytes.
func (j *Journal) prepareSpare(begin LSN, n int) {
	d := span(j.c.pieceSize)
	if begin%d+spareFew*LSN(n) < d/2 {
		return
	}
	j.mu.Lock()
	try := !j.making && j.tried < j.made && len(j.free) == 0 && len(j.live) < j.max && j.usable() == nil
	name := pieceName(j.made)
	if try {
		j.making, j.tried = true, j.made
	}
	j.mu.Unlock()
	switch {
	case !try:
	case j.c.inline:
		j.makeSpare(name)
	default:
		go j.makeSpare(name)
	}
}

// makeSpare makes the spare piece, if it can.
func (j *Journal) makeSpare(name string) {
	var p *piece
	var st unix.Statfs_t
	if err := j.c.Dir.Statfs(&st); err == nil && st.Bavail*uint64(st.Bsize) >= uint64(roomy*int64(j.max)*j.c.pieceSize) {
		p, _ = makePiece(j.c.Dir, name, j.c.pieceSize)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if p != nil {
		j.made++
		j.free = append(j.free, p)
	}
	j.making = false
	j.cond.Broadcast()
}

// awaitSpare returns when the piece that is being made is there, or cannot be, or another came free. seen is what was recycled before.
func (j *Journal) awaitSpare(seen LSN) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.making && j.recycled == seen && j.usable() == nil {
		j.cond.Wait()
	}
}
