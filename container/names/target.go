package names

import (
	"strings"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/siv"
)

// maxHostTarget is the length of the longest target that a host symlink holds,
// in bytes. A sealed target beyond it needs a container symlink.
const maxHostTarget = 4095

// MaxTarget is the length of the longest plain target that fits a host symlink,
// in bytes.
const MaxTarget = maxHostTarget*3/4 - siv.Overhead

// SealTarget returns the host target of the symlink id with the plain target.
// It is longer than maxHostTarget when target is longer than MaxTarget. Equal
// arguments give equal results. An empty target, which no system has, and one
// with a NUL give an empty host target, which the host's calls refuse.
func (c *Codec) SealTarget(id keys.ObjectID, target string) string {
	if checkTarget(target) != nil {
		return ""
	}
	var ad [maxAD]byte
	return encoding.EncodeToString(c.siv.Seal(nil, appendAD(ad[:0], labelSymlink, &id), []byte(target)))
}

// OpenTarget returns the plain target of the symlink id from its host target.
// The error is ErrForeign when it was not sealed for this symlink, and
// ErrBadName when it was and can be no target.
func (c *Codec) OpenTarget(id keys.ObjectID, host string) (string, error) {
	if len(host) > maxHostTarget || strings.ContainsAny(host, "\r\n") {
		return "", ErrForeign
	}
	sealed, err := encoding.DecodeString(host)
	if err != nil {
		return "", ErrForeign
	}
	var ad [maxAD]byte
	target, err := c.siv.Open(nil, appendAD(ad[:0], labelSymlink, &id), sealed)
	if err != nil {
		return "", ErrForeign
	}
	if err := checkTarget(string(target)); err != nil {
		return "", err
	}
	return string(target), nil
}

func checkTarget(target string) error {
	if target == "" || strings.IndexByte(target, 0) >= 0 {
		return ErrBadName
	}
	return nil
}

// TargetLen returns the length of the plain target, which is what stat reports
// of a symlink, from the length of its host target; 0 for a host target too
// short to be sealed.
func TargetLen(hostLen int64) int64 { return max(3*hostLen/4-siv.Overhead, 0) }
