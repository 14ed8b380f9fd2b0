package fakeprovider_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

func has[T any](p provider.Provider) bool { _, ok := provider.As[T](p); return ok }

func TestWithout(t *testing.T) {
	fake := fakeprovider.New(fakeprovider.Config{})
	abilities := map[string]func(provider.Provider) bool{
		"Attacher": has[provider.Attacher], "Lister": has[provider.Lister], "Finder": has[provider.Finder],
		"Pauser": has[provider.Pauser], "Snapshotter": has[provider.Snapshotter], "Filer": has[provider.Filer],
		"Checker": has[provider.Checker], "Resizer": has[provider.Resizer], "Watcher": has[provider.Watcher],
		"KeepAliver": has[provider.KeepAliver], "Meter": has[provider.Meter], "Quotaer": has[provider.Quotaer],
		"Namer": has[provider.Namer],
	}
	for name, hidden := range map[string]provider.Provider{
		"Attacher": fakeprovider.Without[provider.Attacher](fake), "Lister": fakeprovider.Without[provider.Lister](fake),
		"Finder": fakeprovider.Without[provider.Finder](fake), "Pauser": fakeprovider.Without[provider.Pauser](fake),
		"Snapshotter": fakeprovider.Without[provider.Snapshotter](fake), "Filer": fakeprovider.Without[provider.Filer](fake),
		"Checker": fakeprovider.Without[provider.Checker](fake), "Resizer": fakeprovider.Without[provider.Resizer](fake),
		"Watcher": fakeprovider.Without[provider.Watcher](fake), "KeepAliver": fakeprovider.Without[provider.KeepAliver](fake),
		"Meter": fakeprovider.Without[provider.Meter](fake), "Quotaer": fakeprovider.Without[provider.Quotaer](fake),
		"Namer": fakeprovider.Without[provider.Namer](fake),
	} {
		for ability, found := range abilities {
			if !found(fake) {
				t.Errorf("the fake is no %s", ability)
			}
			if got := found(hidden); got != (ability != name) {
				t.Errorf("without %s: %s is %v", name, ability, got)
			}
		}
		if _, err := hidden.Scope(t.Context()); err != nil {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func BenchmarkCreateDelete(b *testing.B) {
	ctx := context.Background()
	for _, live := range []int{0, 10_000} {
		b.Run("live="+strconv.Itoa(live), func(b *testing.B) {
			fake := fakeprovider.New(fakeprovider.Config{})
			defer fake.Close()
			for i := range live {
				if _, err := fake.Create(ctx, provider.CreateRequest{Token: "live" + strconv.Itoa(i), Owner: "bench", Agent: "a"}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				w, err := fake.Create(ctx, provider.CreateRequest{Token: "t" + strconv.Itoa(i), Owner: "bench", Agent: "a"})
				if err != nil {
					b.Fatal(err)
				}
				if err := fake.Delete(ctx, w.ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
