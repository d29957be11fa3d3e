package container

import (
	"io/fs"
	"syscall"
)

func allocated(st fs.FileInfo) int64 { return st.Sys().(*syscall.Stat_t).Blocks * 512 }
