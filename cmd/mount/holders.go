package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxHolders bounds how many processes a message names.
const maxHolders = 8

// users says what keeps the mount at mountpoint, with device number dev, busy: mounts in it, and processes.
func users(mountpoint string, dev uint64) string {
	list := append(mountsIn(mountpoint), holders(dev)...)
	if len(list) == 0 {
		return "processes that are not visible to this user"
	}
	return joinHolders(list)
}

// mountsIn names what is mounted below mountpoint.
func mountsIn(mountpoint string) []string {
	all, err := readMounts()
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range all {
		if strings.HasPrefix(m.mountpoint, strings.TrimSuffix(mountpoint, "/")+"/") {
			out = append(out, "what is mounted on "+oneLine(m.mountpoint))
		}
	}
	return out
}

// holders names the processes that keep the filesystem with device number dev busy: an open file, a working or root
// directory, or a mapping. It sees only what the caller may see of other users' processes.
//
// The daemon itself calls this while it serves the mount: nothing here may send a request to it and wait. statx with
// AT_STATX_DONT_SYNC and an empty mask answers from the inode in memory.
func holders(dev uint64) []string {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		if how := holds(pid, dev); how != "" {
			out = append(out, fmt.Sprintf("%s (pid %d, %s)", processName(pid), pid, how))
		}
	}
	return out
}

// holds says how a process keeps dev busy, "" when it does not.
func holds(pid int, dev uint64) string {
	base := fmt.Sprintf("/proc/%d", pid)
	if onDevice(base+"/cwd", dev) {
		return "working directory"
	}
	if onDevice(base+"/root", dev) {
		return "root directory"
	}
	if fds, err := os.ReadDir(base + "/fd"); err == nil {
		for _, fd := range fds {
			if onDevice(filepath.Join(base, "fd", fd.Name()), dev) {
				return "open file"
			}
		}
	}
	if mapsDevice(base+"/maps", dev) {
		return "mapped file"
	}
	return ""
}

func onDevice(path string, dev uint64) bool {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return false
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor) == dev
}

// mapsDevice looks for the device in lines like "7f00-7f01 r--p 00000000 00:2b 1234 /path".
func mapsDevice(path string, dev uint64) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	want := fmt.Sprintf("%02x:%02x", unix.Major(dev), unix.Minor(dev))
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if fields := strings.Fields(sc.Text()); len(fields) >= 5 && fields[3] == want {
			return true
		}
	}
	return false
}

func processName(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return oneLine(string(b))
}

// joinHolders makes the list fit a message; "" for none.
func joinHolders(list []string) string {
	if len(list) > maxHolders {
		list = append(list[:maxHolders:maxHolders], fmt.Sprintf("and %d more", len(list)-maxHolders))
	}
	return strings.Join(list, ", ")
}
