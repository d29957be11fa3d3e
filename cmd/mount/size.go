package main

import (
	"fmt"
	"strconv"
	"strings"
)

// sizeFlag is a size in bytes as a flag: 65536, 64K, 64KiB, 1M or auto (0).
type sizeFlag int

func (s *sizeFlag) String() string {
	switch {
	case *s == 0:
		return "auto"
	case *s%(1<<20) == 0:
		return fmt.Sprintf("%dM", *s>>20)
	case *s%(1<<10) == 0:
		return fmt.Sprintf("%dK", *s>>10)
	}
	return strconv.Itoa(int(*s))
}

// Type is the word that help shows for the value.
func (s *sizeFlag) Type() string { return "SIZE" }

// Set parses a size. Which sizes exist is the format's to say, not this function's.
func (s *sizeFlag) Set(v string) error {
	if v == "auto" {
		*s = 0
		return nil
	}
	num := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(v), "B"), "I")
	shift := 0
	switch {
	case strings.HasSuffix(num, "K"):
		num, shift = num[:len(num)-1], 10
	case strings.HasSuffix(num, "M"):
		num, shift = num[:len(num)-1], 20
	}
	n, err := strconv.ParseUint(num, 10, 31-shift)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no size: write 65536, 64K, 1M or auto", v)
	}
	*s = sizeFlag(n << shift)
	return nil
}
