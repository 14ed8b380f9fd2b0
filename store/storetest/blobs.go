package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-dev/freshet/store"
)

// RunBlobs runs the cases of store.Blobs. open returns Blobs without any key for one case.
func RunBlobs(t *testing.T, open func(t *testing.T) store.Blobs) {
	for _, c := range []struct {
		name, says string
		test       func(t *testing.T, b store.Blobs)
	}{
		{"RoundTrip", "Get gives what Put stored, of any size and any bytes", func(t *testing.T, b store.Blobs) {
			big := bytes.Repeat([]byte{0, 1, 2, 0xff, '\n', '\r'}, 1<<19)
			for i, data := range [][]byte{{}, {0}, []byte("text"), big} {
				key := fmt.Sprintf("task/%d/log", i)
				if err := b.Put(t.Context(), key, bytes.NewReader(data)); err != nil {
					t.Fatalf("Put: %v", err)
				}
				if got := read(t, b, key); !bytes.Equal(got, data) {
					t.Errorf("%d bytes came back as %d others", len(data), len(got))
				}
			}
		}},
		{"Keys", "keys are data: any UTF-8, and none is the folder of another", func(t *testing.T, b store.Blobs) {
			keys := append(hostileStrings(), "a", "a/b", "a/b/c", "A", "a%2fb", "a/./b", "a//b")
			for _, key := range keys {
				if err := b.Put(t.Context(), key, strings.NewReader("of "+key)); err != nil {
					t.Fatalf("Put %q: %v", key, err)
				}
			}
			for _, key := range keys {
				if got := string(read(t, b, key)); got != "of "+key {
					t.Errorf("under %q is %q", key, got)
				}
			}
			if err := b.Delete(t.Context(), keys[0], keys[1]); err != nil {
				t.Fatalf("Delete: %v", err)
			}
			for _, key := range keys[2:] {
				read(t, b, key)
			}
		}},
		{"NotFound", "Get of what was never stored, or was deleted, is ErrNotFound", func(t *testing.T, b store.Blobs) {
			missing(t, b, "never")
			if err := b.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
				t.Fatalf("Put: %v", err)
			}
			for range 2 {
				if err := b.Delete(t.Context(), "key", "never"); err != nil {
					t.Fatalf("Delete: %v", err)
				}
				missing(t, b, "key")
			}
			if err := b.Delete(t.Context()); err != nil {
				t.Errorf("Delete of nothing: %v", err)
			}
		}},
		{"Torn", "a Put whose reader fails stores nothing", func(t *testing.T, b store.Blobs) {
			torn := errors.New("torn")
			err := b.Put(t.Context(), "key", io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), failing{torn}))
			if !errors.Is(err, torn) {
				t.Errorf("Put: error %v, want %v", err, torn)
			}
			missing(t, b, "key")
			if err := b.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
				t.Fatalf("Put: %v", err)
			}
			if got := string(read(t, b, "key")); got != "data" {
				t.Errorf("got %q", got)
			}
		}},
		{"Repeat", "a Put may be repeated", func(t *testing.T, b store.Blobs) {
			for range 2 {
				if err := b.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
					t.Fatalf("Put: %v", err)
				}
				if got := string(read(t, b, "key")); got != "data" {
					t.Errorf("got %q", got)
				}
			}
		}},
		{"Race", "blobs are put, read and deleted at the same time", func(t *testing.T, b store.Blobs) {
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					own, shared := fmt.Sprint("own", i), "shared"
					for range 10 {
						for _, key := range []string{own, shared} {
							if err := b.Put(t.Context(), key, strings.NewReader("of "+key)); err != nil {
								t.Errorf("Put: %v", err)
							}
						}
						for _, key := range []string{own, shared} {
							r, err := b.Get(t.Context(), key)
							if err != nil {
								t.Errorf("Get: %v", err)
								continue
							}
							if data, err := io.ReadAll(r); err != nil || string(data) != "of "+key {
								t.Errorf("read %q, error %v", data, err)
							}
							_ = r.Close()
						}
						if err := b.Delete(t.Context(), own); err != nil {
							t.Errorf("Delete: %v", err)
						}
					}
				})
			}
			all.Wait()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("the rule: %s", c.says)
				}
			}()
			c.test(t, open(t))
		})
	}
}

// failing is a reader that only fails.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// read returns what is under key, which must be there.
func read(t *testing.T, b store.Blobs, key string) []byte {
	t.Helper()
	r, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get %q: %v", key, err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("reading %q: %v", key, err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closing %q: %v", key, err)
	}
	return data
}

// missing checks that nothing is under key.
func missing(t *testing.T, b store.Blobs, key string) {
	t.Helper()
	r, err := b.Get(t.Context(), key)
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get %q: error %v, want %v", key, err, store.ErrNotFound)
	}
	if err == nil {
		_ = r.Close()
	}
}
