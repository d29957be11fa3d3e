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
	end, stated := j.end, j.stated
	j.batch = j.batch[:0]
	for _, p := range j.live {
		if p.header.limit() > j.synced && p.header.start() < end {
			j.batch = append(j.batch, p)
		}
	}
	j.mu.Unlock()
	var err error
	for _, p := range j.batch {
		if err = p.f.Datasync(); err != nil {
			break // the order of J3: what lies behind does not count
		}
	}
	if err != nil {
		err = j.fail("sync", err)
	}
	j.mu.Lock()
	j.syncing = false
	if err == nil {
		j.synced, j.given = end, stated
	}
	j.cond.Broadcast()
	return err
}
