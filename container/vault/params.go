package vault

import (
	"fmt"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

// Params are the choices that hold for every container of a vault; they are made once, by Create. A zero field stands for
// the default: xaes-256-gcm, blake3, segments of 64 KiB, frames of 4 KiB. Sizes are in bytes.
type Params struct {
	Suite       string
	Digest      string
	SegmentSize uint32
	FrameSize   uint32
}

// digests are the names of FORMAT.md section 3.1; a digest's id is its place, counted from 1.
var digests = [...]string{"blake3", "sha256", "none"}

// geometries are the pairs of FORMAT.md section 4; a geometry's id is its place, counted from 1. Package container has the
// layout that belongs to them; a config must be readable without it.
var geometries = [...]struct{ segment, frame uint32 }{
	{16 << 10, 4 << 10},
	{32 << 10, 8 << 10},
	{64 << 10, 16 << 10},
	{128 << 10, 16 << 10},
	{256 << 10, 16 << 10},
	{1 << 20, 32 << 10},
	{2 << 20, 64 << 10},
	{4 << 20, 64 << 10},
	{64 << 10, 4 << 10},
}

// geometryID returns 0 where there is no such pair.
func geometryID(segment, frame uint32) uint8 {
	for i, g := range geometries {
		if g.segment == segment && g.frame == frame {
			return uint8(i + 1)
		}
	}
	return 0
}

// digestID returns 0 where there is no such digest.
func digestID(name string) uint8 {
	for i, d := range digests {
		if d == name {
			return uint8(i + 1)
		}
	}
	return 0
}

// fileParams fills in the defaults and checks the rest.
func (p Params) fileParams() (keys.FileParams, error) {
	if p.Suite == "" {
		p.Suite = suite.XAES256GCM.String()
	}
	if p.Digest == "" {
		p.Digest = digests[0]
	}
	if p.SegmentSize == 0 && p.FrameSize == 0 {
		p.SegmentSize, p.FrameSize = 64<<10, 4<<10
	}
	id, err := suite.Parse(p.Suite)
	if err != nil {
		return keys.FileParams{}, fmt.Errorf("vault: suite %q: %w", p.Suite, ErrParams)
	}
	fp := keys.FileParams{Suite: id, Digest: digestID(p.Digest), SegmentSize: p.SegmentSize, FrameSize: p.FrameSize}
	if fp.Digest == 0 {
		return keys.FileParams{}, fmt.Errorf("vault: digest %q: %w", p.Digest, ErrParams)
	}
	if geometryID(p.SegmentSize, p.FrameSize) == 0 {
		return keys.FileParams{}, fmt.Errorf("vault: segment size %d with frame size %d: %w", p.SegmentSize, p.FrameSize, ErrParams)
	}
	return fp, nil
}

// paramsOf is the inverse of fileParams.
func paramsOf(fp keys.FileParams) Params {
	return Params{Suite: fp.Suite.String(), Digest: digests[fp.Digest-1], SegmentSize: fp.SegmentSize, FrameSize: fp.FrameSize}
}
