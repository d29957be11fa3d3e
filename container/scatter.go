package container

const (
	// scatterMin is from what size on reads all over a file go past the host's memory; those of streamMin may begin a stream. Room in that memory for 64 KiB, and the
	// copy, cost half as much time as the disk. Of smaller reads a good part finds what the host read beside earlier ones.
	scatterMin = 32 << 10
	// scatterFew is how many such reads lie apart, the next one included, when it goes that way.
	scatterFew = 8
)

// pastReader is a host file that can read past the host's memory what is not in there.
type pastReader interface {
	ReadPast(p []byte, off int64) (n int, done bool, err error)
}

// scatter tells reads of middle size all over a file from those one behind the other.
type scatter struct {
	ends  streams
	apart int // how many lay apart lately, up to twice scatterFew; guarded by ends.mu
}

// next takes [off, end) for the next read, and answers whether it is one of many that lie apart.
func (s *scatter) next(g *Geometry, off, end int64) bool {
	if end-off < scatterMin || end-off >= streamMin {
		return false
	}
	_, _, near := s.ends.next(g, off, end)
	s.ends.mu.Lock()
	defer s.ends.mu.Unlock()
	if near {
		s.apart /= 2
	} else {
		s.apart = min(s.apart+1, 2*scatterFew)
	}
	return s.apart >= scatterFew
}

// readScattered reads p past the host's memory, where it can: what is read will not be asked for again soon, nor what lies beside it.
func (f *File) readScattered(p []byte, off int64) (n int, err error) {
	if h, ok := f.host.(pastReader); ok && len(p) >= scatterMin && len(p)%BlockSize == 0 {
		if n, done, err := h.ReadPast(p, off); done {
			return n, err
		}
	}
	return f.host.ReadAt(p, off)
}
