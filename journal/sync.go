package journal

// Sync returns when everything up to lsn (or End, where that is less) is durable. One caller at a time does one fdatasync per piece that needs it, in
// order, for all transactions that were appended before; the others wait for it or its successor. After a failed fdatasync nobody
// knows what the host kept, so that it is sticky and never repeated: ErrFailed, but nil for what had been durable before.
func (j *Journal) Sync(lsn LSN) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	lsn = min(lsn, j.end)
	for {
		if j.synced >= lsn {
			return nil
		}
		if err := j.usable(); err != nil {
			return err
		}
		if !j.syncing {
			break
		}
		j.cond.Wait()
	}
	j.syncing = true
	end, stated, flying := j.end, j.stated, j.flying
	j.batch = j.batch[:0]
	for _, p := range j.live {
		if p.header.limit() > j.synced && p.header.start() < end {
			j.batch = append(j.batch, p)
		}
	}
	j.mu.Unlock()
	var err error
	if flying != nil { // that is all which is not durable
		err = flying.end()
	} else {
		err = syncPieces(j.batch)
	}
	if err != nil {
		err = j.fail("sync", err)
	}
	j.mu.Lock()
	j.syncing, j.flying = false, nil
	if err == nil {
		j.synced, j.given = end, stated
	}
	j.cond.Broadcast()
	return err
}

// syncPieces stops at the first error, by the order of J3: what lies behind does not count.
func syncPieces(pieces []*piece) error {
	for _, p := range pieces {
		if err := p.f.Datasync(); err != nil {
			return err
		}
	}
	return nil
}

// land waits until nothing is flying: who appends needs the buffer that it lies in.
func (j *Journal) land() error {
	j.mu.Lock()
	flying, end := j.flying, j.end
	j.mu.Unlock()
	if flying == nil {
		return nil
	}
	return j.Sync(end)
}
