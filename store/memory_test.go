package store_test

import (
	"testing"
	"testing/synctest"

	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
	"github.com/freshet-dev/freshet/store/storetest"
)

var (
	_ store.Store    = (*store.Memory)(nil)
	_ store.Liner    = (*store.Memory)(nil)
	_ store.Watcher  = (*store.Memory)(nil)
	_ store.Blobs    = (*store.Memory)(nil)
	_ queue.Notifier = (*store.Memory)(nil)
	_ queue.Placer   = (*store.Memory)(nil)
)

func TestMemory(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		New:     func(*testing.T) store.Store { return store.NewMemory() },
		Bubble:  synctest.Test,
		Virtual: true,
	})
}

func TestMemoryBlobs(t *testing.T) {
	storetest.RunBlobs(t, func(*testing.T) store.Blobs { return store.NewMemory() })
}
