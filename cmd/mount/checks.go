package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxLinks bounds the symbolic links followed to a mount point, as the kernel does.
const maxLinks = 40

// absolute makes a path absolute and cleans it; the daemon changes to "/".
func absolute(path string) (string, error) {
	if path == "" {
		return "", failf(exitUsage, "give a path", "the path is empty")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", failf(exitOther, "", "%w", err)
	}
	return abs, nil
}

// resolveMountpoint resolves the symbolic links on the way to a mount point without touching the mount point itself: where a killed
// daemon left its mount behind, every call on it fails with ENOTCONN.
func resolveMountpoint(path string) (string, error) {
	path, err := absolute(path)
	if err != nil {
		return "", err
	}
	for range maxLinks {
		if path == "/" {
			return path, nil
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return path, err
		}
		path = filepath.Join(dir, filepath.Base(path))
		target, err := os.Readlink(path)
		if err != nil { // not a link, not there, or a dead mount
			return path, nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = filepath.Clean(target)
	}
	return path, &fs.PathError{Op: "resolve", Path: path, Err: unix.ELOOP}
}

// checkVaultDir says whether path is a directory that can hold a vault; it does not look inside.
func checkVaultDir(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failf(exitVaultDir, fmt.Sprintf("make one with: coffer init %s", quote(path)), "vault directory %s does not exist", path)
	case errors.Is(err, fs.ErrPermission):
		return failf(exitPermission, "run as the vault's owner", "vault directory: %w", err)
	case err != nil:
		return failf(exitVaultDir, "check the path", "vault directory: %w", err)
	case !st.IsDir():
		return failf(exitVaultDir, "a vault is a directory", "%s is not a directory", path)
	}
	return nil
}

// checkMountpoint makes sure that a vault can be mounted on mountpoint, which is resolved and not a dead mount. vault may not
// exist yet.
func checkMountpoint(vault, mountpoint string) error {
	if err := checkApart(vault, mountpoint); err != nil {
		return err
	}
	st, err := os.Stat(mountpoint)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failf(exitMountpoint, fmt.Sprintf("make it with: mkdir %s (or use --create)", quote(mountpoint)),
			"mount point %s does not exist", mountpoint)
	case errors.Is(err, fs.ErrPermission):
		return failf(exitPermission, "choose a directory of your own", "mount point: %w", err)
	case err != nil:
		return failf(exitMountpoint, "check the path", "mount point: %w", err)
	case !st.IsDir():
		return failf(exitMountpoint, "mount on an empty directory", "mount point %s is not a directory", mountpoint)
	}
	if m, ok, err := mountAt(mountpoint); err == nil && ok && m.fsType == fsType {
		return failf(exitMountpoint, fmt.Sprintf("unmount it first: coffer umount %s", quote(mountpoint)),
			"%s is already a coffer mount (of %s)", mountpoint, m.source)
	}
	empty, err := isEmptyDir(mountpoint)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return failf(exitPermission, "choose a directory of your own", "mount point: %w", err)
	case err != nil:
		return failf(exitMountpoint, "check the path", "mount point: %w", err)
	case !empty:
		return failf(exitMountpoint, "mount on an empty directory: what is in it would be hidden", "mount point %s is not empty", mountpoint)
	}
	if os.Geteuid() != 0 && unix.Access(mountpoint, unix.W_OK) != nil {
		return failf(exitPermission, "choose a directory of your own", "mount point %s is not writable", mountpoint)
	}
	return nil
}

// checkApart refuses a mount point in the vault (it would encrypt itself into a loop) and a vault under the mount point (it would
// be hidden). Both are found by device and inode, so bind mounts and links do not hide them, and by name where they are yet to
// be made.
func checkApart(vault, mountpoint string) error {
	vault, mountpoint = canonical(vault), canonical(mountpoint)
	v, vok := identify(vault)
	m, mok := identify(mountpoint)
	if vault == mountpoint || vok && mok && v == m {
		return failf(exitMountpoint, "use two different directories", "vault and mount point are the same directory")
	}
	if isBelow(mountpoint, vault) || vok && hasAncestor(mountpoint, v) {
		return failf(exitMountpoint, "choose a mount point outside of the vault", "mount point %s is inside the vault", mountpoint)
	}
	if isBelow(vault, mountpoint) || mok && hasAncestor(vault, m) {
		return failf(exitMountpoint, "choose a mount point that is not above the vault", "vault %s is inside the mount point", vault)
	}
	return nil
}

type fileIdentity struct{ dev, ino uint64 }

func identify(path string) (fileIdentity, bool) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileIdentity{}, false
	}
	return fileIdentity{st.Dev, st.Ino}, true
}

// hasAncestor says whether the directory id lies on the way from path, which is canonical, up to the root.
func hasAncestor(path string, id fileIdentity) bool {
	for path != "/" {
		path = filepath.Dir(path)
		if got, ok := identify(path); ok && got == id {
			return true
		}
	}
	return false
}

// canonical resolves the links in the part of an absolute path that exists.
func canonical(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if path == "/" {
		return path
	}
	return filepath.Join(canonical(filepath.Dir(path)), filepath.Base(path))
}

func isBelow(path, dir string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") && path != dir
}

func isEmptyDir(path string) (bool, error) {
	d, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(1)
	if len(names) > 0 {
		return false, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return true, nil
}

// clearDeadMount removes what a killed daemon left at mountpoint: a mount of ours that answers ENOTCONN. Nothing can be lost by
// it, its daemon is gone.
func clearDeadMount(mountpoint string) (note string, err error) {
	if !isDead(mountpoint) {
		return "", nil
	}
	clear := "umount " + quote(mountpoint)
	if os.Geteuid() != 0 {
		clear = "fusermount3 -u " + quote(mountpoint)
	}
	m, ok, err := mountAt(mountpoint)
	if err != nil || !ok || m.fsType != fsType {
		return "", failf(exitMountpoint, "clear it with: "+clear, "%s is a dead mount of another filesystem", mountpoint)
	}
	if err := unmountPath(mountpoint, true); err != nil {
		return "", failf(exitMountpoint, "clear it with: "+clear, "%s is a dead mount, left by a killed daemon, and could not be cleared: %w", mountpoint, err)
	}
	return fmt.Sprintf("cleared a dead mount that a killed daemon had left at %s", mountpoint), nil
}

// deadPatience is how long a mount may take to say that it is dead; the kernel says so at once.
const deadPatience = 2 * time.Second

// isDead reports whether what is mounted at mountpoint has lost its daemon. One that hangs is not dead, and is not waited for.
func isDead(mountpoint string) bool {
	dead := make(chan bool, 1)
	go func() {
		// statfs is never answered from the kernel's memory, as stat is for as long as attributes are believed.
		var st unix.Statfs_t
		dead <- errors.Is(unix.Statfs(mountpoint, &st), unix.ENOTCONN)
	}()
	select {
	case d := <-dead:
		return d
	case <-time.After(deadPatience):
		return false
	}
}

// checkFUSE makes sure that a mount can be asked for at all.
func checkFUSE(w mountWords) error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return failf(exitFUSE, "load the kernel module: modprobe fuse (in a container: pass the device /dev/fuse in)", "/dev/fuse is missing")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return failf(exitFUSE, "let users open it: chmod 666 /dev/fuse (udev does so on most systems)", "/dev/fuse: permission denied")
	case err != nil:
		return failf(exitFUSE, "", "/dev/fuse: %w", err)
	}
	_ = unix.Close(fd)
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := fusermountPath(); err != nil {
		return failf(exitFUSE, "install it: apt-get install fuse3", "fusermount3 is not installed; mounting as a normal user needs it")
	}
	if w.Suid || w.Dev {
		return failf(exitPermission, "leave suid and dev out", "only root can mount with suid or dev")
	}
	if w.AllowOther && !userAllowOther("/etc/fuse.conf") {
		return failf(exitPermission, "have the line user_allow_other put into /etc/fuse.conf", "allow_other is not permitted to normal users on this machine")
	}
	return nil
}

// fusermountPath finds the set-user-id program that mounts and unmounts for normal users, where go-fuse looks for it too.
func fusermountPath() (string, error) {
	path, err := exec.LookPath("fusermount3")
	if err == nil {
		return path, nil
	}
	return exec.LookPath("/bin/fusermount3")
}

// userAllowOther reads fuse.conf(5): the word stands on a line by itself.
func userAllowOther(conf string) bool {
	f, err := os.Open(conf)
	if err != nil {
		return false
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if strings.TrimSpace(sc.Text()) == "user_allow_other" {
			return true
		}
	}
	return false
}

// orReadOnly is what a mount can do where the vault cannot be written to.
const orReadOnly = ", or mount for reading only: -o ro"

// checkWritable says early that the vault's host cannot be written to; what only shows when writing (a full host) comes from the vault. or goes on from the
// hint with what else helps.
func checkWritable(vault, or string) error {
	for _, p := range []string{vault, filepath.Join(vault, ".coffer")} {
		switch err := unix.Access(p, unix.W_OK); {
		case errors.Is(err, unix.EROFS):
			return failf(exitReadOnly, "have the host mounted for writing"+or, "the vault's host is read-only: %s", p)
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			return failf(exitPermission, "run as the vault's owner"+or, "the vault is not writable: %s", p)
		}
	}
	return nil
}

// writableVaultDir makes path absolute for a command that replaces a config, which may be lost: that of a directory that can hold a vault and can be written to.
func writableVaultDir(path string) (string, error) {
	path, err := absolute(path)
	if err == nil {
		err = checkVaultDir(path)
	}
	if err == nil {
		err = checkWritable(path, "")
	}
	return path, err
}

// quote makes a path safe to paste into a shell.
func quote(path string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@%", r)
	}
	if path != "" && strings.IndexFunc(path, func(r rune) bool { return !safe(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
