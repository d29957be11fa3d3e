package container

import (
	"encoding/binary"
	"fmt"

	"github.com/cofferfs/coffer/internal/disk"
)

// EdgeBlocks is the most blocks of an Edge: the header, and a tree node of each level.
const EdgeBlocks = 1 + treeLevels

// Edge returns the blocks that are overwritten in their places when more is added to a file without a journal: the header, then the tree nodes above its last
// group, from level 1 on, as far as there are any. After a power cut has torn them, PutEdge brings the file back to what it is now. Everything must be flushed,
// and the size be a multiple of a group, as every multiple of 4 MiB is in every geometry. The slice is the caller's.
func (f *File) Edge() ([]byte, error) {
	f.commit.Lock()
	defer f.commit.Unlock()
	edge := make([]byte, BlockSize, EdgeBlocks*BlockSize)
	if _, err := f.readHost(edge, 0, BlockSize, false); err != nil {
		return nil, &MetaError{Op: "read", Level: headerLevel, Err: err}
	}
	last := f.groupOf(f.geo.segmentOf(max(f.Size()-1, 0)))
	if last < headerGroups {
		return edge, nil
	}
	for level := uint8(1); level <= treeLevels; level++ {
		b, err := f.lookup(level, (last-headerGroups)>>(fanoutShift*uint(level)))
		if err != nil {
			return nil, err
		}
		if b != nil {
			edge = append(edge, b[:]...)
		}
	}
	return edge, nil
}

// PutEdge writes the blocks of an Edge to their places in a host file that is not open as a container. It does not check that they belong there: opening and
// reading the container does. The error is ErrCorrupt for what is no Edge, else the host's.
func (g *Geometry) PutEdge(h disk.File, edge []byte) error {
	if len(edge) == 0 || len(edge)%BlockSize != 0 || len(edge) > EdgeBlocks*BlockSize {
		return fmt.Errorf("container: edge of %d bytes: %w", len(edge), ErrCorrupt)
	}
	for at := 0; at < len(edge); at += BlockSize {
		b, addr := (*block)(edge[at:]), int64(0)
		if at > 0 {
			level, index := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
			if level < 1 || level > treeLevels || index >= (maxGroups-headerGroups)>>(fanoutShift*level) || b.checkNode(uint8(level), index, b[32:48]) != nil {
				return fmt.Errorf("container: edge: %w", ErrCorrupt)
			}
			addr = g.nodeAddr(uint8(level), index)
		}
		if _, err := h.WriteAt(b[:], addr); err != nil {
			return &MetaError{Op: "write", Level: headerLevel, Err: err}
		}
	}
	return nil
}
