package names

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/siv"
)

const (
	maxHost = 255 // bytes of a host name

	// The associated data of the three things that are sealed: a label, padded
	// with zeros, then an id. The labels have different lengths or bytes, so
	// that none can stand for another.
	labelName    = "coffer name v1\x00\x00"
	labelLong    = "coffer long name v1\x00\x00\x00\x00\x00"
	labelSymlink = "coffer symlink v1\x00\x00\x00\x00\x00\x00\x00"
	maxAD        = len(labelLong) + keys.IDSize

	sidecarSuffix = ".name"
)

// encoding refuses trailing bits that are not zero, else one sealed name would
// have several host names.
var encoding = base64.RawURLEncoding.Strict()

// A Codec seals and opens names and symlink targets under the names key of one
// vault. Safe for concurrent use.
type Codec struct {
	siv *siv.Cipher
}

// New returns the codec for K_names, 64 bytes, which it does not keep. It panics
// when the key has another length, as that of a destroyed ring has.
func New(kNames []byte) *Codec {
	c, err := siv.New(kNames)
	if err != nil {
		panic("names: " + err.Error())
	}
	return &Codec{c}
}

func appendAD(b []byte, label string, id *keys.ObjectID) []byte {
	return append(append(b, label...), id[:]...)
}

// Seal returns the host name of l in the directory parent and, where the plain
// name is long, the content of the sidecar to be put beside it, else nil. The
// flag Long of l is ignored and set as the length demands. Equal arguments give
// equal results.
//
// A link that no reader would accept (see CheckName; also an unknown type or
// flag, or a geometry that is missing or out of place) has no host name: host is
// then empty, and the host's calls refuse that.
func (c *Codec) Seal(parent keys.ObjectID, l Link) (host string, sidecar []byte) {
	if CheckName(l.Name) != nil || l.check() != nil {
		return "", nil
	}
	var ad [maxAD]byte
	l.Flags &^= Long
	if len(l.Name) > maxShort {
		l.Flags |= Long
		sidecar = c.siv.Seal(nil, appendAD(ad[:0], labelLong, &parent), []byte(l.Name))
	}
	var plain [maxPlain]byte
	var sealed [maxPlain + siv.Overhead]byte
	var text [maxHost]byte
	s := c.siv.Seal(sealed[:0], appendAD(ad[:0], labelName, &parent), l.appendTo(plain[:0]))
	return string(encoding.AppendEncode(text[:0], s)), sidecar
}

// Open returns the link that the host name stands for in the directory parent.
// For a long name its Name is empty until OpenLong has read the sidecar. That
// the host object is of the type HostMode tells is the caller's to check.
//
// The error is ErrForeign when the name was not sealed in this directory, and
// wraps ErrBadName when it was and is malformed.
func (c *Codec) Open(parent keys.ObjectID, host string) (Link, error) {
	var l Link
	var ad [maxAD]byte
	var sealed [maxPlain + siv.Overhead]byte
	var plain [maxPlain]byte
	s, ok := decode(sealed[:0], host)
	if !ok {
		return Link{}, ErrForeign
	}
	p, err := c.siv.Open(plain[:0], appendAD(ad[:0], labelName, &parent), s)
	if err != nil {
		return Link{}, ErrForeign
	}
	if err := l.parse(p); err != nil {
		return Link{}, err
	}
	return l, nil
}

// OpenLong puts the plain name into *l, which Open returned for a long name in
// the directory parent, from the content of its sidecar. The error is
// ErrSidecar, and *l is then unchanged.
func (c *Codec) OpenLong(parent keys.ObjectID, l *Link, sidecar []byte) error {
	if l.Flags&Long == 0 || len(sidecar) != int(l.nameLen)+siv.Overhead {
		return ErrSidecar
	}
	var ad [maxAD]byte
	var plain [MaxName]byte
	name, err := c.siv.Open(plain[:0], appendAD(ad[:0], labelLong, &parent), sidecar)
	if err != nil || sha256.Sum256(name) != l.nameHash {
		return ErrSidecar
	}
	if CheckName(string(name)) != nil {
		return fmt.Errorf("%w: no plain name", ErrSidecar)
	}
	l.Name = string(name)
	return nil
}

// decode appends what host encodes to dst, which has room for all that a host
// name can hold. It accepts canonical base64url only.
func decode(dst []byte, host string) ([]byte, bool) {
	// The decoder skips line breaks, which would make several host names of one.
	if len(host) > maxHost || strings.ContainsAny(host, "\r\n") {
		return nil, false
	}
	var text [maxHost]byte
	s, err := encoding.AppendDecode(dst, text[:copy(text[:], host)])
	return s, err == nil
}

// HasForm reports whether a host name has the form of a sealed name, whether or not it opens anywhere. One that has it and does not
// open was moved, changed or made by somebody else (FORMAT.md section 2).
func HasForm(host string) bool {
	var sealed [maxPlain + siv.Overhead]byte
	s, ok := decode(sealed[:0], host)
	n := len(s) - siv.Overhead
	return ok && n > headSize && (n == maxPlain || n%padTo == 0)
}

// longHostSize is the length of the host name of every long name.
var longHostSize = encoding.EncodedLen(longPlainSize + siv.Overhead)
