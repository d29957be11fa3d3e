package redo

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/cofferfs/coffer/container/keys"
	"github.com/cofferfs/coffer/internal/disk"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// foreign reports whether a host file begins with the whole header of a container of another object (FORMAT.md section 7): somebody swapped files on the
// host. What a torn or missing header belongs to nobody can say, and the name counts.
func foreign(host disk.File, id keys.ObjectID) (bool, error) {
	b := make([]byte, block)
	if _, err := host.ReadAt(b, 0); err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return false, err
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	clear(b[8:12])
	return string(b[:8]) == "COFFERC1" && crc32.Checksum(b, castagnoli) == sum && keys.ObjectID(b[56:72]) != id, nil
}

// foreignAt is foreign for the file that has a name. Of one that went nobody can say, either, nor for a View of one that cannot be read: it must not hide the others.
func (c *Config) foreignAt(d disk.Dir, name string, id keys.ObjectID) (other bool, err error) {
	host, err := d.Open(name, disk.ReadOnly)
	if err == nil {
		other, err = foreign(host, id)
		host.Close()
	}
	if c.viewing {
		return other, nil
	}
	return other, unlessGone(err)
}
