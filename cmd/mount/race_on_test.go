//go:build race

package main

// raceEnabled says that the tests, and so the program under test, are built with the race detector.
const raceEnabled = true
