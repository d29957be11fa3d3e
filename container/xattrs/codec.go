package xattrs

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/container/siv"
	"golang.org/x/sys/unix"
)

var (
	// ErrForeign says that an attribute of the host is not one of ours: it was not sealed for this object under this key.
	ErrForeign = errors.New("not a sealed attribute of this object")
	// ErrBadAttr says that a sealed attribute is authentic and malformed, or that its value was not sealed with its name.
	ErrBadAttr = errors.New("sealed attribute is damaged")
)

const (
	// MaxName is the length of the longest plain name, its name space included, in bytes: Linux's XATTR_NAME_MAX.
	MaxName = 255
	// maxShort is the longest name whose sealed form is a host name by itself; of longer ones that has the hash.
	maxShort = 163

	labelName  = "coffer xattr v1\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	labelValue = "coffer xattr value v1\x00\x00\x00"
	labelMode  = "coffer attributes v1\x00\x00\x00\x00"
	idEnd      = len(labelName) + keys.IDSize
	maxSealed  = 1 + maxShort + siv.Overhead // of T

	// The form of a name is the first byte of what T seals.
	formShort, formLong = 0, 1
)

// encoding refuses trailing bits that are not zero, else one sealed name would have several host names.
var encoding = base64.RawURLEncoding.Strict()

// Object is whose attributes are meant. Trusted objects are those that have no user attributes on Linux: all but files and directories.
type Object struct {
	ID      keys.ObjectID
	Trusted bool
}

// prefix is where sealed attributes are on the host; the sealed mode is there without the dot.
func (o Object) prefix() string {
	if o.Trusted {
		return "trusted.coffer."
	}
	return "user.coffer."
}

// A Codec seals and opens attributes under the xattr key of one vault. Safe for concurrent use.
type Codec struct{ siv *siv.Cipher }

// New returns the codec for K_xattr, 64 bytes, which it does not keep. It panics when the key has another length, as that of a
// destroyed ring has.
func New(kXattr []byte) *Codec {
	c, err := siv.New(kXattr)
	if err != nil {
		panic("xattrs: " + err.Error())
	}
	return &Codec{c}
}

// CheckName answers the errno of a call with a name that no attribute can have.
func CheckName(name string) error {
	switch {
	case name == "" || strings.IndexByte(name, 0) >= 0:
		return unix.EINVAL
	case len(name) > MaxName:
		return unix.ERANGE
	}
	return nil
}

func ad(dst []byte, label string, o Object, t []byte) []byte {
	return append(append(append(dst, label...), o.ID[:]...), t...)
}

// sealName appends T, the sealed name, to dst.
func (c *Codec) sealName(dst []byte, o Object, name string) []byte {
	var a [idEnd]byte
	var n [1 + maxShort]byte
	if len(name) > maxShort {
		sum := sha256.Sum256([]byte(name))
		return c.siv.Seal(dst, ad(a[:0], labelName, o, nil), append(append(n[:0], formLong), sum[:]...))
	}
	return c.siv.Seal(dst, ad(a[:0], labelName, o, nil), append(append(n[:0], formShort), name...))
}

// HostName returns the host name of an attribute, whose name CheckName accepts. Equal arguments give equal results.
func (c *Codec) HostName(o Object, name string) string {
	var t [maxSealed]byte
	return o.prefix() + encoding.EncodeToString(c.sealName(t[:0], o, name))
}

// Seal returns name and value of an attribute as the host keeps them.
func (c *Codec) Seal(o Object, name string, value []byte) (host string, sealed []byte) {
	var tb [maxSealed]byte
	t := c.sealName(tb[:0], o, name)
	if len(name) > maxShort {
		value = append(append([]byte{byte(len(name))}, name...), value...)
	}
	var a [idEnd + maxSealed]byte
	return o.prefix() + encoding.EncodeToString(t), c.siv.Seal(nil, ad(a[:0], labelValue, o, t), value)
}

// IsSealed reports whether a host attribute is in the place of sealed ones of o.
func IsSealed(o Object, host string) bool { return strings.HasPrefix(host, o.prefix()) }

// openName returns T and what it seals, still with its form.
func (c *Codec) openName(o Object, host string) (t, n []byte, err error) {
	text, ok := strings.CutPrefix(host, o.prefix())
	if !ok || strings.ContainsAny(text, "\r\n") { // the decoder skips line breaks, which would make several names of one
		return nil, nil, ErrForeign
	}
	t, err = encoding.DecodeString(text)
	if err != nil || len(t) > maxSealed {
		return nil, nil, ErrForeign
	}
	var a [idEnd]byte
	n, err = c.siv.Open(nil, ad(a[:0], labelName, o, nil), t)
	switch {
	case err != nil:
		return nil, nil, ErrForeign
	case len(n) == 0, n[0] > formLong, n[0] == formLong && len(n) != 1+sha256.Size:
		return nil, nil, fmt.Errorf("%w: unknown form of name", ErrBadAttr)
	case n[0] == formShort && CheckName(string(n[1:])) != nil:
		return nil, nil, fmt.Errorf("%w: no attribute has such a name", ErrBadAttr)
	}
	return t, n, nil
}

// OpenName returns the plain name of a host attribute. It is empty for a long name, which Open finds in the value. The error is ErrForeign
// or wraps ErrBadAttr.
func (c *Codec) OpenName(o Object, host string) (name string, err error) {
	_, n, err := c.openName(o, host)
	if err != nil || n[0] == formLong {
		return "", err
	}
	return string(n[1:]), nil
}

// Open returns the plain name and value of a host attribute. The error is ErrForeign or wraps ErrBadAttr.
func (c *Codec) Open(o Object, host string, sealed []byte) (name string, value []byte, err error) {
	t, n, err := c.openName(o, host)
	if err != nil {
		return "", nil, err
	}
	var a [idEnd + maxSealed]byte
	v, err := c.siv.Open(nil, ad(a[:0], labelValue, o, t), sealed)
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("%w: value does not open", ErrBadAttr)
	case n[0] == formShort:
		return string(n[1:]), v, nil
	case len(v) == 0 || len(v) <= int(v[0]):
		return "", nil, fmt.Errorf("%w: value is too short for its name", ErrBadAttr)
	}
	end := 1 + int(v[0])
	name, v = string(v[1:end]), v[end:]
	if sum := sha256.Sum256([]byte(name)); len(name) <= maxShort || string(n[1:]) != string(sum[:]) || CheckName(name) != nil {
		return "", nil, fmt.Errorf("%w: value has another name", ErrBadAttr)
	}
	return name, v, nil
}

// The sealed mode, before sealing:
//
//	0 1  version = 1
//	1 1  flags: bit 0: mode is set
//	2 2  permission bits, at most 07777
const (
	modeSize    = 4
	modeVersion = 1
	modeSet     = 1
	permissions = 0o7777
)

// SealMode returns the value of the host attribute that holds the plain permission bits of an object.
func (c *Codec) SealMode(o Object, mode uint32) []byte {
	p := [modeSize]byte{modeVersion, modeSet}
	binary.LittleEndian.PutUint16(p[2:], uint16(mode&permissions))
	var a [idEnd]byte
	return c.siv.Seal(nil, ad(a[:0], labelMode, o, nil), p[:])
}

// OpenMode returns the permission bits that SealMode sealed; set is false where the attribute holds none. The error wraps ErrBadAttr.
func (c *Codec) OpenMode(o Object, sealed []byte) (mode uint32, set bool, err error) {
	var a [idEnd]byte
	p, err := c.siv.Open(nil, ad(a[:0], labelMode, o, nil), sealed)
	if err != nil {
		return 0, false, fmt.Errorf("%w: mode does not open", ErrBadAttr)
	}
	if len(p) != modeSize || p[0] != modeVersion || p[1]&^modeSet != 0 || binary.LittleEndian.Uint16(p[2:]) > permissions {
		return 0, false, fmt.Errorf("%w: malformed mode", ErrBadAttr)
	}
	return uint32(binary.LittleEndian.Uint16(p[2:])), p[1]&modeSet != 0, nil
}
