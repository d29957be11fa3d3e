package container

import (
	"fmt"
	"math"
	"math/bits"
	"strings"

	"github.com/cofferfs/coffer/internal/crc32c"
)

const (
	// BlockSize is the host block: headers, meta blocks and tree nodes are one each.
	BlockSize = 4096

	headerGroups = 32  // groups pinned by the header itself
	nodeFanout   = 128 // pins per tree node
	topNodes     = 128 // level-3 nodes pinned by the header
	fanoutShift  = 7   // log2(nodeFanout)
	treeLevels   = 3   // levels of tree nodes between the header and the meta blocks
	recordHead   = 128 // bytes of a segment record before its frame entries
	entrySize    = 56  // bytes of one frame entry
	maxGroups    = headerGroups + topNodes<<(fanoutShift*(treeLevels-1)+fanoutShift)
	minRecord    = 512  // smallest segment record
	bodyOffset   = 512  // of the header's body
	macOffset    = 4064 // of the header's HMAC
	bodySize     = macOffset - bodyOffset
	inlineMax    = bodySize - entrySize // most plain bytes that a header holds
	singleFrames = 16                   // most frames of a segment whose record a header may hold
)

// Geometry says how a container is cut into segments and frames and where on the host each of them lies (FORMAT.md section 4).
// Exactly nine exist; they are compared by pointer.
type Geometry struct {
	ID          uint8
	SegmentSize int // S, plain bytes
	FrameSize   int // F, plain bytes
	Frames      int // n = S/F, at most 64

	record     int   // M, bytes of a segment record
	perGroup   int   // g, segments per group
	groupPlain int64 // g·S, plain bytes per group
	stride     int64 // G, host bytes per group without tree nodes

	segShift, frameShift, groupShift uint // log2 of S, F and g·S

	behind *crc32c.Fixed // for CRCs of what has a frame behind it
}

// AllowedSegmentSizes and AllowedFrameSizes list every size that occurs in a geometry, in bytes.
var (
	AllowedSegmentSizes = [...]int{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20}
	AllowedFrameSizes   = [...]int{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10}
)

// Frame size profiles, for callers that choose by use and not by number.
const (
	HighParallelization = 4 << 10
	Balanced            = 16 << 10
	NetworkFriendly     = 32 << 10
	LowOverhead         = 64 << 10
)

var geometries = [...]*Geometry{
	newGeometry(1, 16<<10, 4<<10),
	newGeometry(2, 32<<10, 8<<10),
	newGeometry(3, 64<<10, 16<<10),
	newGeometry(4, 128<<10, 16<<10),
	newGeometry(5, 256<<10, 16<<10),
	newGeometry(6, 1<<20, 32<<10),
	newGeometry(7, 2<<20, 64<<10),
	newGeometry(8, 4<<20, 64<<10),
	newGeometry(9, 64<<10, 4<<10),
}

func newGeometry(id uint8, segment, frame int) *Geometry {
	n := segment / frame
	record := max(minRecord, 1<<bits.Len(uint(recordHead+entrySize*n-1)))
	g := BlockSize / record
	plain := int64(g) * int64(segment)
	return &Geometry{
		ID: id, SegmentSize: segment, FrameSize: frame, Frames: n,
		record: record, perGroup: g, groupPlain: plain, stride: BlockSize + plain,
		segShift: uint(bits.TrailingZeros(uint(segment))), frameShift: uint(bits.TrailingZeros(uint(frame))),
		groupShift: uint(bits.TrailingZeros64(uint64(plain))), behind: crc32c.NewFixed(int64(frame)),
	}
}

// combine returns the CRC32C of bytes and n more, a frame at most, from those of both.
func (g *Geometry) combine(sum, more uint32, n int) uint32 {
	if n == g.FrameSize {
		return g.behind.Combine(sum, more)
	}
	return crc32c.Combine(sum, more, int64(n))
}

// GeometryByID returns the geometry of a row of FORMAT.md's table; an unknown id is ErrFeature.
func GeometryByID(id uint8) (*Geometry, error) {
	if id < 1 || int(id) > len(geometries) {
		return nil, fmt.Errorf("geometry id %d: %w", id, ErrFeature)
	}
	return geometries[id-1], nil
}

// GeometryFor returns the geometry with this segment and frame size in bytes. A frame size of 0 means auto: OptimalFrameSize of
// the segment size. Any pair that does not exist is an error that lists the pairs that do.
func GeometryFor(segment, frame int) (*Geometry, error) {
	if frame == 0 {
		frame = OptimalFrameSize(segment)
	}
	for _, g := range geometries {
		if g.SegmentSize == segment && g.FrameSize == frame {
			return g, nil
		}
	}
	pairs := make([]string, len(geometries))
	for i, g := range geometries {
		pairs[i] = g.String()
	}
	with := ""
	if frame != 0 {
		with = fmt.Sprintf(" with frame size %d", frame)
	}
	return nil, fmt.Errorf("segment size %d%s: %w; segment/frame may be %s", segment, with, ErrGeometry, strings.Join(pairs, ", "))
}

// OptimalFrameSize is the frame size, in bytes, that the size table pairs with a segment size: 4 to 64 frames per segment. It is 0
// for a segment size that is not allowed.
func OptimalFrameSize(segment int) int {
	for _, g := range geometries {
		if g.SegmentSize == segment {
			return g.FrameSize
		}
	}
	return 0
}

// String is "64K/4K".
func (g *Geometry) String() string {
	return sizeName(g.SegmentSize) + "/" + sizeName(g.FrameSize)
}

func sizeName(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%dM", n>>20)
	}
	return fmt.Sprintf("%dK", n>>10)
}

// MaxSize is the largest plain size of a file in bytes; beyond it writes and truncates fail with ErrTooLarge.
func (g *Geometry) MaxSize() int64 { return maxGroups * g.groupPlain }

// groupAddr is the host offset of the meta block of group j.
func (g *Geometry) groupAddr(j uint64) int64 {
	addr := BlockSize + int64(j)*g.stride
	if j >= headerGroups {
		q := j - headerGroups
		addr += BlockSize * int64((q>>7)+1+(q>>14)+1+(q>>21)+1)
	}
	return addr
}

// nodeAddr is the host offset of the tree node with an index at a level (1 to 3): nodes stand before the first group they cover,
// the lowest level nearest to it.
func (g *Geometry) nodeAddr(level uint8, index uint64) int64 {
	first := headerGroups + index<<(fanoutShift*uint(level))
	return g.groupAddr(first) - BlockSize*int64(level)
}

// slotAddr is the host offset of the slot of a frame.
func (g *Geometry) slotAddr(segment uint64, frame int) int64 {
	j := segment / uint64(g.perGroup)
	return g.groupAddr(j) + BlockSize + int64(segment%uint64(g.perGroup))<<g.segShift + int64(frame)<<g.frameShift
}

// hostOffset is where plain byte p lies.
func (g *Geometry) hostOffset(p int64) int64 {
	j := p >> g.groupShift
	return g.groupAddr(uint64(j)) + BlockSize + p - j<<g.groupShift
}

// HostLength is the length of the host file of a container with this plain size.
func (g *Geometry) HostLength(plain int64) int64 {
	if plain <= 0 {
		return BlockSize
	}
	return g.hostOffset(plain-1) + 1
}

// PlainSize inverts HostLength. A length that HostLength never returns is ErrSize: the host file was cut or extended.
func (g *Geometry) PlainSize(hostLen int64) (int64, error) {
	if hostLen == BlockSize {
		return 0, nil
	}
	if hostLen < BlockSize || hostLen > g.HostLength(g.MaxSize()) {
		return 0, fmt.Errorf("host length %d: %w", hostLen, ErrSize)
	}
	// Without tree nodes the group number would be the stride's quotient, which is too high; with the nodes of that many groups
	// taken off it is a few too low.
	last := hostLen - 1
	j := uint64((last - BlockSize) / g.stride)
	nodes := g.groupAddr(j) - BlockSize - int64(j)*g.stride
	j = uint64(max(0, last-BlockSize-nodes) / g.stride)
	for j+1 < maxGroups && g.groupAddr(j+1) <= last {
		j++
	}
	within := last - g.groupAddr(j) - BlockSize
	if within < 0 || within >= g.groupPlain {
		return 0, fmt.Errorf("host length %d: %w", hostLen, ErrSize)
	}
	return int64(j)<<g.groupShift + within + 1, nil
}

// segmentOf and frameOf give the segment of a plain offset and the frame within that segment.
func (g *Geometry) segmentOf(off int64) uint64 { return uint64(off >> g.segShift) }
func (g *Geometry) frameOf(off int64) int {
	return int(off&int64(g.SegmentSize-1)) >> g.frameShift
}

// frameStart is the plain offset of the first byte of a frame.
func (g *Geometry) frameStart(segment uint64, frame int) int64 {
	return int64(segment)<<g.segShift + int64(frame)<<g.frameShift
}

// checkRange reports whether [off, off+n) lies within the largest file.
func (g *Geometry) checkRange(off, n int64) error {
	if off < 0 || n < 0 || off > math.MaxInt64-n || off+n > g.MaxSize() {
		return fmt.Errorf("bytes %d to %d of a file of at most %d: %w", off, off+n, g.MaxSize(), ErrTooLarge)
	}
	return nil
}
