package main

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cofferfs/coffer/container/names"
	"github.com/cofferfs/coffer/container/plain"
)

// objectInfo is an object of a vault. The names of the JSON fields are stable.
type objectInfo struct {
	Name    string    `json:"name"`                  // what is not UTF-8 in it replaced
	RawName string    `json:"name_base64,omitempty"` // where it is not all UTF-8
	Type    string    `json:"type"`
	Mode    string    `json:"mode"` // octal permission bits
	Size    int64     `json:"size"`
	Blocks  int64     `json:"blocks"` // of 512 bytes, on the host
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	Nlink   uint64    `json:"nlink"`
	Mtime   time.Time `json:"mtime"`
	Atime   time.Time `json:"atime"`
	Ctime   time.Time `json:"ctime"`
	Target  string    `json:"target,omitempty"` // of a symlink
	Error   string    `json:"error,omitempty"`  // why the rest is not known

	mode uint32
	raw  string
}

func (a *app) lsCmd() *cobra.Command {
	var f unlockFlags
	var long, asJSON bool
	cmd := &cobra.Command{
		Use:   "ls VAULT [PATH]",
		Short: "List a directory of a vault, without a mount",
		Long: `List the directory at PATH, which is counted from the root of the vault, or that root. A mounted vault is read through its mount. Names that damage hides
are reported, with exit code ` + fmt.Sprint(int(exitDamage)) + `.`,
		Args: rangeArgs(1, 2, "VAULT", "[PATH]"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := append(args, "/")[1]
			return a.lookAt(args[0], name, true, f, func(s *source, n plain.Node) error {
				return a.ls(s, n, name, func(w io.Writer, all []objectInfo) error {
					switch {
					case asJSON:
						return a.printJSON(all)
					case long:
						return printLong(w, all, isTerminalOut(w))
					}
					return printNames(w, all, isTerminalOut(w))
				})
			})
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVarP(&long, "long", "l", false, "show mode, links, owner, size and time")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// ls shows what n holds, or n itself where that is no directory.
func (a *app) ls(s *source, n plain.Node, name string, show func(io.Writer, []objectInfo) error) error {
	nodes, err := n.Children()
	if errors.Is(err, unix.ENOTDIR) {
		return errors.Join(show(a.stdout, []objectInfo{describeNode(n)}), s.damage())
	}
	if err != nil {
		return asDamage(pathFailed(name, err))
	}
	all := []objectInfo{}
	for _, c := range nodes {
		all = append(all, describeNode(c))
		c.Release()
	}
	slices.SortFunc(all, func(a, b objectInfo) int { return cmp.Compare(a.raw, b.raw) })
	if err := show(a.stdout, all); err != nil {
		return err
	}
	for _, o := range all {
		if o.Error != "" {
			return failf(exitDamage, "restore it from a backup", "%s: %s", oneLine(o.Name), o.Error)
		}
	}
	return s.damage()
}

// describeNode does not fail: what cannot be told of an object is its Error.
func describeNode(n plain.Node) objectInfo {
	o := objectInfo{Name: n.Name(), raw: n.Name()}
	if !utf8.ValidString(o.raw) {
		o.RawName = base64.StdEncoding.EncodeToString([]byte(o.raw))
	}
	if o.Name == "" {
		o.Name, o.raw = "/", "/"
	}
	st, err := n.Stat()
	if err == nil && st.Type() == unix.S_IFLNK {
		o.Target, err = n.Readlink()
	}
	if err != nil {
		o.Error = err.Error()
		if st.Mode == 0 {
			return o
		}
	}
	at := func(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()).UTC() }
	o.mode, o.Type, o.Mode = st.Mode, names.TypeOfMode(st.Mode).String(), fmt.Sprintf("%04o", st.Mode&0o7777)
	o.Size, o.Blocks, o.UID, o.GID, o.Nlink = st.Size, st.Blocks, st.UID, st.GID, st.Nlink
	o.Mtime, o.Atime, o.Ctime = at(st.Mtime), at(st.Atime), at(st.Ctime)
	return o
}

// shown is a name for a terminal, which control characters in it cannot confuse, or as it is for a program.
func shown(name string, terminal bool) string {
	if terminal {
		return oneLine(name)
	}
	return name
}

func printNames(w io.Writer, all []objectInfo, terminal bool) error {
	for _, o := range all {
		if _, err := fmt.Fprintln(w, shown(o.raw, terminal)); err != nil {
			return err
		}
	}
	return nil
}

func printLong(w io.Writer, all []objectInfo, terminal bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', tabwriter.AlignRight)
	for _, o := range all {
		name := shown(o.raw, terminal)
		if o.Target != "" {
			name += " -> " + shown(o.Target, terminal)
		}
		if o.Error != "" {
			name += " (" + o.Error + ")"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%s\t %s\n", fileMode(o.mode), o.Nlink, o.UID, o.GID, o.Size, o.Mtime.Format(time.RFC3339), name)
	}
	return t.Flush()
}

// fileMode is the mode as ls(1) shows it, nearly.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, b := range []struct {
		bit  uint32
		flag fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if mode&b.bit != 0 {
			m |= b.flag
		}
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	}
	return m
}

func (a *app) statCmd() *cobra.Command {
	var f unlockFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stat VAULT PATH",
		Short: "Show the attributes of a file of a vault, without a mount",
		Long:  `Show what is known of the object at PATH, which is counted from the root of the vault; of a symlink, of itself. A mounted vault is read through its mount.`,
		Args:  exactArgs("VAULT", "PATH"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.lookAt(args[0], args[1], false, f, func(_ *source, n plain.Node) error {
				if _, err := n.Stat(); err != nil {
					return asDamage(pathFailed(args[1], err))
				}
				o := describeNode(n)
				if asJSON {
					return a.printJSON(o)
				}
				return o.print(a.stdout)
			})
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (o *objectInfo) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "name\t%s\n", oneLine(o.Name))
	fmt.Fprintf(t, "type\t%s\n", o.Type)
	if o.Target != "" {
		fmt.Fprintf(t, "target\t%s\n", oneLine(o.Target))
	}
	fmt.Fprintf(t, "size\t%d bytes\n", o.Size)
	fmt.Fprintf(t, "mode\t%s %s\n", o.Mode, fileMode(o.mode))
	fmt.Fprintf(t, "owner\t%d:%d\n", o.UID, o.GID)
	fmt.Fprintf(t, "links\t%d\n", o.Nlink)
	fmt.Fprintf(t, "modified\t%s\n", o.Mtime.Format(time.RFC3339Nano))
	fmt.Fprintf(t, "accessed\t%s\n", o.Atime.Format(time.RFC3339Nano))
	fmt.Fprintf(t, "changed\t%s\n", o.Ctime.Format(time.RFC3339Nano))
	return t.Flush()
}
