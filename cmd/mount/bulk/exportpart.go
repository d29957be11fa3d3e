package bulk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/plain"
)

// errBusy keeps two from writing one file.
var errBusy = errors.New("another process is copying to it")

// partFile is a large file on its way to the host. It has a name from its beginning, so that a later run finds it. Its bytes lie at their places, and
// behind them, from the size of the source on, two resume points that are written in turn:
//
//	0  8  how many bytes are durable
//	8 32  SHA-256(label ‖ size and mtime of the source, 8 bytes for each number ‖ object ‖ bytes 0..7)
//
// So a resume point of another source, or of the same one before it changed, is none.
type partFile struct {
	*tempFile
	of   plain.Stat
	turn int64 // which of the two is next
}

const (
	partLabel = "coffer export v1"
	pointSize = 8 + sha256.Size
)

// part opens what an earlier run left of a file, or begins it, and says how many bytes of it count. It is locked until it is closed.
func (d *destDir) part(final string, of plain.Stat) (p *partFile, from int64, err error) {
	name := tempName(final) + partSuffix
	path := filepath.Join(d.path, name)
	fd, err := unix.Openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, 0, pathError("create", path, err)
	}
	p = &partFile{tempFile: &tempFile{os.NewFile(uintptr(fd), path), d, name}, of: of}
	var st, there unix.Stat_t
	switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		p.Close()
		return nil, 0, errBusy
	case unix.Fstat(fd, &st) != nil || unix.Fstatat(d.fd, name, &there, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Ino != there.Ino || st.Dev != there.Dev:
		p.Close() // it has just got its final name
		return nil, 0, errBusy
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != uint32(os.Geteuid()) || st.Nlink != 1:
		p.Close()
		return nil, 0, pathError("open", path, unix.EEXIST) // not ours: who made it may change it
	}
	from = p.durable(&st)
	if err := p.rewind(from); err != nil {
		p.Close()
		return nil, 0, err
	}
	return p, from, nil
}

// durable is how many bytes of the file count.
func (p *partFile) durable(st *unix.Stat_t) (from int64) {
	switch st.Size {
	case p.of.Size: // all but its name, or not begun
		if st.Mtim == p.of.Mtime {
			return st.Size
		}
	case p.of.Size + 2*pointSize:
		for turn := range int64(2) {
			b := make([]byte, pointSize)
			if _, err := p.ReadAt(b, p.of.Size+turn*pointSize); err != nil {
				return 0
			}
			if n := int64(binary.LittleEndian.Uint64(b)); n > from && n <= p.of.Size && bytes.Equal(b, p.point(n)) {
				from, p.turn = n, 1-turn
			}
		}
	}
	return from
}

// rewind makes everything behind the first bytes that count a hole, and keeps these.
func (p *partFile) rewind(from int64) error {
	if from == p.of.Size {
		return nil
	}
	if err := errors.Join(p.Truncate(from), p.Truncate(p.of.Size+2*pointSize)); err != nil || from == 0 {
		return err
	}
	return p.save(from)
}

func (p *partFile) point(durable int64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(durable))
	h := sha256.New()
	_, _ = io.WriteString(h, partLabel) // a hash takes everything
	for _, n := range []int64{p.of.Size, p.of.Mtime.Sec, p.of.Mtime.Nsec} {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	}
	_, _ = io.WriteString(h, p.of.Object)
	h.Write(b)
	return h.Sum(b)
}

// save makes the data durable and then says so. The resume point itself is durable with the next one, or when the host has time for it.
func (p *partFile) save(durable int64) error {
	if err := pathError("fdatasync", p.Name(), unix.Fdatasync(int(p.Fd()))); err != nil {
		return err
	}
	_, err := p.WriteAt(p.point(durable), p.of.Size+p.turn*pointSize)
	p.turn = 1 - p.turn
	return err
}

// whole ends a file that has all of its bytes: it makes them durable and takes the resume points off.
func (p *partFile) whole() error {
	if err := p.save(p.of.Size); err != nil {
		return err
	}
	return p.Truncate(p.of.Size)
}

// close leaves the file to a later run, or removes it. After it got its final name it does neither.
func (p *partFile) close(keep bool) {
	if keep {
		p.name = ""
	}
	p.discard()
}
