package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A vault is committed as a .tar.gz, so that modes, FIFOs, links and names survive git. Host files are sparse, up to many GiB long;
// archive/tar cannot write GNU's sparse formats. So a regular file carries two PAX records of ours:
//
//	COFFER.size    length of the file
//	COFFER.ranges  "offset:length,…", the 4 KiB blocks that are not zero; the body holds just these
//
// Owner and times are left out: the same tree gives the same bytes.
const (
	paxSize   = "COFFER.size"
	paxRanges = "COFFER.ranges"
)

type hostRange struct{ off, n int64 }

// packTree returns the tree below dir as an archive.
func packTree(dir string) ([]byte, error) {
	var out bytes.Buffer
	zw, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	tw := tar.NewWriter(zw)
	seen := map[uint64]string{} // inode -> name in the archive, for hard links
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Format: tar.FormatPAX}
		if e.Type().IsRegular() || e.Type()&fs.ModeNamedPipe != 0 {
			if first, ok := seen[st.Ino]; ok {
				h.Typeflag, h.Linkname = tar.TypeLink, first
				return tw.WriteHeader(h)
			}
			seen[st.Ino] = name
		}
		switch {
		case e.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		case e.Type().IsRegular():
			return packFile(tw, h, path, st.Size)
		case e.Type()&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = os.Readlink(path); err != nil {
				return err
			}
		case e.Type()&fs.ModeNamedPipe != 0:
			h.Typeflag = tar.TypeFifo
		default:
			return fmt.Errorf("%s: an archive cannot hold %v", name, e.Type())
		}
		return tw.WriteHeader(h)
	})
	err = errors.Join(err, tw.Close(), zw.Close())
	return out.Bytes(), err
}

func packFile(tw *tar.Writer, h *tar.Header, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	ranges, err := dataRanges(f, size)
	if err != nil {
		return err
	}
	words := make([]string, len(ranges))
	for i, r := range ranges {
		words[i] = fmt.Sprintf("%d:%d", r.off, r.n)
		h.Size += r.n
	}
	h.Typeflag = tar.TypeReg
	h.PAXRecords = map[string]string{paxSize: strconv.FormatInt(size, 10)}
	if len(words) > 0 { // a PAX record is not empty
		h.PAXRecords[paxRanges] = strings.Join(words, ",")
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	for _, r := range ranges {
		if _, err := io.Copy(tw, io.NewSectionReader(f, r.off, r.n)); err != nil {
			return err
		}
	}
	return nil
}

// dataRanges returns the blocks that are not zero, whatever the host's own idea of holes.
func dataRanges(f *os.File, size int64) (out []hostRange, err error) {
	const block = 4096
	buf := make([]byte, block)
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, err
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		for at = from - from%block; at < to; at += block {
			n, err := f.ReadAt(buf, at)
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			if len(bytes.Trim(buf[:n], "\x00")) == 0 {
				continue
			}
			if last := len(out) - 1; last >= 0 && out[last].off+out[last].n == at {
				out[last].n += int64(n)
			} else {
				out = append(out, hostRange{at, int64(n)})
			}
		}
	}
	return out, nil
}

// unpackTree puts an archive of packTree below dir, which is empty.
func unpackTree(archive []byte, dir string) (err error) {
	zr, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	var late []*tar.Header // directories get their modes when nothing more goes into them
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name, mode := filepath.Clean(h.Name), os.FileMode(h.Mode&0o777)
		switch h.Typeflag {
		case tar.TypeDir:
			late = append(late, h)
			err = root.Mkdir(name, 0o700)
		case tar.TypeReg:
			err = unpackFile(root, name, mode, h, tr)
		case tar.TypeLink:
			err = root.Link(h.Linkname, name)
		case tar.TypeSymlink:
			// Sealed targets lead nowhere; os.Root would still look at them.
			err = os.Symlink(h.Linkname, filepath.Join(dir, name))
		case tar.TypeFifo:
			if err = unix.Mkfifo(filepath.Join(dir, name), 0o600); err == nil {
				err = root.Chmod(name, mode)
			}
		default:
			err = fmt.Errorf("%s: unknown type %q", name, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
	for i := len(late) - 1; i >= 0; i-- {
		if err := root.Chmod(filepath.Clean(late[i].Name), os.FileMode(late[i].Mode&0o777)); err != nil {
			return err
		}
	}
	return zr.Close()
}

func unpackFile(root *os.Root, name string, mode os.FileMode, h *tar.Header, body io.Reader) (err error) {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := strconv.ParseInt(h.PAXRecords[paxSize], 10, 64)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	for word := range strings.SplitSeq(h.PAXRecords[paxRanges], ",") {
		if word == "" {
			continue
		}
		var r hostRange
		if _, err := fmt.Sscanf(word, "%d:%d", &r.off, &r.n); err != nil {
			return err
		}
		if _, err := io.CopyN(io.NewOffsetWriter(f, r.off), body, r.n); err != nil {
			return err
		}
	}
	return f.Chmod(mode)
}
