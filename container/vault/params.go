package vault

import (
	"fmt"

	"github.com/cofferfs/coffer/container"
	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/suite"
)

// Params are the choices that hold for every container of a vault; they are made once, by Create. A zero field stands for
// the default: xaes-256-gcm, crc32c, segments of 64 KiB, frames of 4 KiB; a frame size of 0 beside a segment size is
// chosen by the size table. Sizes are in bytes.
type Params struct {
	Suite       string
	Digest      string
	SegmentSize uint32
	FrameSize   uint32
}

// fileParams fills in the defaults and checks the rest. The error wraps ErrParams.
func (p Params) fileParams() (keys.FileParams, error) {
	if p.Suite == "" {
		p.Suite = suite.XAES256GCM.String()
	}
	if p.Digest == "" {
		p.Digest = container.DefaultDigest.String()
	}
	if p.SegmentSize == 0 && p.FrameSize == 0 {
		p.SegmentSize, p.FrameSize = 64<<10, 4<<10
	}
	fp := keys.FileParams{}
	id, err := suite.Parse(p.Suite)
	if err != nil {
		return fp, fmt.Errorf("vault: suite %q: %w", p.Suite, ErrParams)
	}
	digest, err := container.ParseDigest(p.Digest)
	if err != nil {
		return fp, fmt.Errorf("vault: %w: %w", ErrParams, err)
	}
	g, err := container.GeometryFor(int(p.SegmentSize), int(p.FrameSize))
	if err != nil {
		return fp, fmt.Errorf("vault: %w: %w", ErrParams, err)
	}
	return keys.FileParams{Suite: id, Digest: uint8(digest), SegmentSize: uint32(g.SegmentSize), FrameSize: uint32(g.FrameSize)}, nil
}

// paramsOf is the inverse of fileParams.
func paramsOf(fp keys.FileParams) Params {
	return Params{Suite: fp.Suite.String(), Digest: container.DigestAlg(fp.Digest).String(), SegmentSize: fp.SegmentSize, FrameSize: fp.FrameSize}
}
