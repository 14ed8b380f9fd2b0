package fakeprovider_test

import (
	"testing"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

func has[T any](p provider.Provider) bool {
	_, ok := provider.As[T](p)
	return ok
}

func TestWithout(t *testing.T) {
	fake := fakeprovider.New(fakeprovider.Config{})
	abilities := []struct {
		name   string
		hidden provider.Provider
		has    func(provider.Provider) bool
	}{
		{"Attacher", fakeprovider.Without[provider.Attacher](fake), has[provider.Attacher]},
		{"Lister", fakeprovider.Without[provider.Lister](fake), has[provider.Lister]},
		{"Finder", fakeprovider.Without[provider.Finder](fake), has[provider.Finder]},
		{"Pauser", fakeprovider.Without[provider.Pauser](fake), has[provider.Pauser]},
		{"Snapshotter", fakeprovider.Without[provider.Snapshotter](fake), has[provider.Snapshotter]},
		{"Filer", fakeprovider.Without[provider.Filer](fake), has[provider.Filer]},
		{"Checker", fakeprovider.Without[provider.Checker](fake), has[provider.Checker]},
		{"Resizer", fakeprovider.Without[provider.Resizer](fake), has[provider.Resizer]},
		{"Watcher", fakeprovider.Without[provider.Watcher](fake), has[provider.Watcher]},
		{"KeepAliver", fakeprovider.Without[provider.KeepAliver](fake), has[provider.KeepAliver]},
		{"Meter", fakeprovider.Without[provider.Meter](fake), has[provider.Meter]},
		{"Quotaer", fakeprovider.Without[provider.Quotaer](fake), has[provider.Quotaer]},
		{"Namer", fakeprovider.Without[provider.Namer](fake), has[provider.Namer]},
	}
	for _, a := range abilities {
		if !a.has(fake) {
			t.Errorf("the fake is no %s", a.name)
		}
		for _, b := range abilities {
			if got := b.has(a.hidden); got != (a.name != b.name) {
				t.Errorf("without %s: %s is %v", a.name, b.name, got)
			}
		}
		create(t, a.hidden, "t")
		caps := a.hidden.Capabilities()
		if caps.Attach != (a.name != "Attacher") || len(caps.PauseKinds) > 0 != (a.name != "Pauser") {
			t.Errorf("without %s: %+v", a.name, caps)
		}
	}
	if len(fake.Workspaces()) != 1 {
		t.Error("the providers without an ability are not the same provider")
	}
	if fakeprovider.Without[error](fake) != provider.Provider(fake) {
		t.Error("without what is no ability: another provider")
	}
}
