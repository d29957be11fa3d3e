package fs

import "sync"

// closings are the files that are closed in the background. Unlike a sync.WaitGroup it takes another one while somebody waits for those before.
type closings struct {
	mu      sync.Mutex
	none    sync.Cond // running is 0
	running int
}

// begin runs fn in the background. It does not wait.
func (c *closings) begin(fn func()) {
	c.mu.Lock()
	c.running++
	c.mu.Unlock()
	go func() {
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.running--; c.running == 0 {
				c.none.Broadcast()
			}
		}()
		fn()
	}()
}

// wait returns when none is running.
func (c *closings) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.running > 0 {
		c.none.Wait()
	}
}
