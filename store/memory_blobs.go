package store

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// memoryBlobs implements Blobs.
type memoryBlobs struct {
	mu   sync.RWMutex // protects data; the bytes themselves never change
	data map[string][]byte
}

// Put implements Blobs.
func (b *memoryBlobs) Put(ctx context.Context, key string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data[key] = data
	return nil
}

// Get implements Blobs. What it opened stays readable after a Delete.
func (b *memoryBlobs) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	data, ok := b.data[key]
	if !ok {
		return nil, ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Delete implements Blobs.
func (b *memoryBlobs) Delete(ctx context.Context, keys ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range keys {
		delete(b.data, key)
	}
	return nil
}
