package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Every file that a doc.go names is there: beside it, at that path below the top, or in one of the layers, as where fs/doc.go follows a request down.
func TestDocFiles(t *testing.T) {
	const top = "../.."
	named := regexp.MustCompile(`[a-z0-9_/]+\.go\b`)
	layers := []string{"fs", "cache", "container", "journal", ""}
	packages, names := 0, 0
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "doc.go" {
			return err
		}
		packages++
		text, err := os.ReadFile(path)
		for _, name := range named.FindAllString(string(text), -1) {
			names++
			found := exists(filepath.Join(filepath.Dir(path), name))
			for _, l := range layers {
				found = found || exists(filepath.Join(top, l, name))
			}
			if !found {
				t.Errorf("%s names %s, which is not there", path, name)
			}
		}
		return err
	})
	if err != nil || packages < 15 || names < 100 {
		t.Errorf("%d packages with %d names of files, %v", packages, names, err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
