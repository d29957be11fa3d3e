package fs

import (
	"bytes"
	"log"
	"log/slog"
	"strings"
	"testing"
)

// The end of a reader that was busy when the mount went is nothing to warn of; what else go-fuse says is.
func TestFuseLog(t *testing.T) {
	var out bytes.Buffer
	l := log.New(fuseLog{slog.New(slog.NewTextHandler(&out, nil))}, "", 0)
	l.Printf("Failed to read from fuse conn: %v", "103=software caused connection abort")
	if out.Len() != 0 {
		t.Errorf("logged: %s", out.String())
	}
	l.Printf("Failed to read from fuse conn: %v", "5=input/output error")
	if s := out.String(); !strings.Contains(s, "level=WARN") || !strings.Contains(s, `msg="Failed to read from fuse conn: 5=input/output error"`) {
		t.Errorf("logged: %q", s)
	}
}
