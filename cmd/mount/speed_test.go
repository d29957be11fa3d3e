package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSpeed(t *testing.T) {
	b := newBox(t)
	var r speedReport
	if err := json.Unmarshal([]byte(b.ok("", "speed", "--json", "--time", "2ms").stdout), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 10 || r.Cores < 1 || r.Default != "xaes-256-gcm" || r.Fastest == "" {
		t.Errorf("%+v", r)
	}
	for _, row := range r.Rows {
		if row.SealOne <= 0 || row.SealAll <= 0 || row.OpenOne <= 0 || row.OpenAll <= 0 {
			t.Errorf("%+v", row)
		}
	}
	text := b.ok("", "speed", "--time", "1ms").stdout
	if strings.Count(text, "MiB/s") != 10 || !strings.Contains(text, "coffer init chooses") {
		t.Errorf("%s", text)
	}
	b.fails(exitUsage, "not positive", "", "speed", "--time", "0s")
}
