package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	formatHeading = regexp.MustCompile(`(?m)^##+ (\d+(?:\.\d+)?)\.? `)
	formatStep    = regexp.MustCompile(`\*\*([CARJ]\d)\*\*`)

	citedSections = regexp.MustCompile(`FORMAT\.md,? (?:sections? )?(\d+(?:\.\d+)?(?:(?:, | and | to )\d+(?:\.\d+)?)*)`)
	number        = regexp.MustCompile(`\d+(?:\.\d+)?`)
	goFile        = regexp.MustCompile(`\w+\.go\b`)
	citedStep     = regexp.MustCompile(`\b[CARJ][1-9]\b`)
)

// TestFormatReferences: what the comments of the program cite of FORMAT.md, sections and steps, is there.
func TestFormatReferences(t *testing.T) {
	text, err := os.ReadFile("../FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, re := range []*regexp.Regexp{formatHeading, formatStep} {
		for _, m := range re.FindAllStringSubmatch(string(text), -1) {
			known[m[1]] = true
		}
	}
	cited := 0
	check := func(path string, line int, what string) {
		if cited++; !known[what] {
			t.Errorf("%s:%d cites %s, which FORMAT.md does not have", path, line, what)
		}
	}
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(src), "\n") {
			for _, m := range citedSections.FindAllStringSubmatch(line, -1) {
				for _, section := range number.FindAllString(m[1], -1) {
					check(path, i+1, section)
				}
			}
			_, comment, _ := strings.Cut(line, "//")
			for _, step := range citedStep.FindAllString(comment, -1) {
				check(path, i+1, step)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const least = 100 // fewer: the patterns above do not find them any more
	if cited < least {
		t.Errorf("%d citations found, want %d or more", cited, least)
	}
}

// TestDocFiles: where the doc.go of a package lists its files in reading order, it lists all of them.
func TestDocFiles(t *testing.T) {
	docs := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "doc.go" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "# The files, in reading order") {
			return err
		}
		docs++
		files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.go"))
		for _, file := range files {
			name := filepath.Base(file)
			if name != "doc.go" && !strings.HasSuffix(name, "_test.go") && !slices.Contains(goFile.FindAllString(string(text), -1), name) {
				t.Errorf("%s does not list %s", path, name)
			}
		}
		return err
	})
	if err != nil || docs == 0 {
		t.Errorf("%d lists of files, %v", docs, err)
	}
}
