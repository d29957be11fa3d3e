package cache

import "errors"

// ErrNoData is SeekData's and SeekHole's answer where there is no such offset (ENXIO of lseek(2)).
var ErrNoData = errors.New("no data at or behind the offset")
