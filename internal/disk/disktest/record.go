package disktest

import (
	"math/rand/v2"
)

// snapshotEvery is how many operations at most CutAt repeats.
const snapshotEvery = 64

// Record begins a log of all operations that change the disk or what is stable of it, syncs included; one that stands is dropped.
func (m *Memory) Record() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recording, m.log = true, nil
	m.snapshots = []*state{m.s.clone()}
}

// Ops is how many operations were recorded.
func (m *Memory) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.log)
}

// CutAt is Cut right after the first k recorded operations, as if the rest had never been. Calls that failed are no operations, what they did
// before they failed is.
func (m *Memory) CutAt(k int, l Loss, rng *rand.Rand) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.snapshots[k/snapshotEvery].clone()
	for _, do := range m.log[k/snapshotEvery*snapshotEvery : k] {
		do(s)
	}
	return m.cut(s, l, rng)
}

// apply changes the disk by a recorded operation.
func (m *Memory) apply(do func(s *state)) {
	do(m.s)
	m.note(do)
}

// note records an operation that was done. do must keep nothing that its caller may change, and do the same on each state that m was in.
func (m *Memory) note(do func(s *state)) {
	if !m.recording {
		return
	}
	m.log = append(m.log, do)
	if len(m.log)%snapshotEvery == 0 {
		m.snapshots = append(m.snapshots, m.s.clone())
	}
}
