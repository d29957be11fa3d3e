package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fsType is what the kernel calls our mounts in /proc/self/mountinfo.
const fsType = "fuse.coffer"

// mountEntry is one line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
type mountEntry struct {
	major, minor uint32
	root         string
	mountpoint   string
	fsType       string
	source       string
	owner        uint32 // the user who mounted it, of FUSE mounts
}

// dev is the device number as stat(2) shows it for objects of the mount.
func (m mountEntry) dev() uint64 { return unix.Mkdev(m.major, m.minor) }

// readMounts lists the mounts that this process sees, in the kernel's order: of several at one path the last is on top.
func readMounts() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []mountEntry
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 0, 64<<10), 1<<20) // overlay mounts have very long lines
	for sc.Scan() {
		if m, ok := parseMount(sc.Text()); ok {
			out = append(out, m)
		}
	}
	return out, sc.Err()
}

// parseMount reads "36 35 98:0 /root /mount/point opts [optional…] - type source superopts".
func parseMount(line string) (mountEntry, bool) {
	left, right, ok := strings.Cut(line, " - ")
	if !ok {
		return mountEntry{}, false
	}
	l, r := strings.Fields(left), strings.Fields(right)
	if len(l) < 6 || len(r) < 1 {
		return mountEntry{}, false
	}
	maj, min, ok := strings.Cut(l[2], ":")
	if !ok {
		return mountEntry{}, false
	}
	major, err1 := strconv.ParseUint(maj, 10, 32)
	minor, err2 := strconv.ParseUint(min, 10, 32)
	if err1 != nil || err2 != nil {
		return mountEntry{}, false
	}
	m := mountEntry{
		major: uint32(major), minor: uint32(minor),
		root: unescapeMount(l[3]), mountpoint: unescapeMount(l[4]), fsType: r[0],
	}
	m.owner = fuseOwner(r[len(r)-1])
	// An empty source leaves two spaces, which Fields swallows: then there is no source to report.
	if len(r) >= 2 {
		m.source = unescapeMount(r[1])
	}
	return m, true
}

// fuseOwner reads user_id=N in the options of a FUSE superblock; 0 where it is not there.
func fuseOwner(options string) uint32 {
	for word := range strings.SplitSeq(options, ",") {
		if v, ok := strings.CutPrefix(word, "user_id="); ok {
			if uid, err := strconv.ParseUint(v, 10, 32); err == nil {
				return uint32(uid)
			}
		}
	}
	return 0
}

// unescapeMount undoes the kernel's \ooo for space, tab, newline, backslash and '#'.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountAt returns the topmost mount whose mount point is exactly path.
func mountAt(path string) (mountEntry, bool, error) {
	all, err := readMounts()
	if err != nil {
		return mountEntry{}, false, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].mountpoint == path {
			return all[i], true, nil
		}
	}
	return mountEntry{}, false, nil
}
