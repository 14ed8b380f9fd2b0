package oblienprovider_test

import (
	"archive/tar"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/oblienprovider"
)

// TestState: the status of the record says nothing; the machine's own does.
func TestState(t *testing.T) {
	for object, want := range map[string]struct {
		state provider.State
		up    bool
	}{
		`{"status":"active","ready":true,"info":{"status":"running"},"provisioning":{"state":"ready"}}`: {provider.Running, true},
		`{"status":"active","info":{"status":"running"}}`:                                               {provider.Running, true},
		`{"status":"active","info":{"is_running":true},"provisioning":{"state":"ready"}}`:               {provider.Running, false},
		`{"status":"running"}`: {provider.Running, true},
		`{"status":"active","ready":false,"info":{"status":"running"}}`:                                                  {provider.Running, false},
		`{"status":"active","ready":true,"info":{"status":"paused"}}`:                                                    {provider.Paused, false},
		`{"status":"active","info":{"status":"hibernated"}}`:                                                             {provider.Paused, false},
		`{"status":"active","info":{"status":"suspended"}}`:                                                              {provider.Paused, false},
		`{"status":"active","info":{"status":"stopped","user_requested_stop":true}}`:                                     {provider.Paused, false},
		`{"status":"active","ready":false,"info":{"status":"stopped"},"provisioning":{"state":"ready","phase":"ready"}}`: {provider.Failed, false},
		`{"status":"active","info":{"status":"resuming"}}`:                                                               {provider.Changing, false},
		`{"status":"active","info":{"status":"something new"}}`:                                                          {provider.Changing, false},
		`{"provisioning":{"state":"queued","phase":"queued"}}`:                                                           {provider.Creating, false},
		`{"info":{"status":"running"},"provisioning":{"state":"running","phase":"initializing"}}`:                        {provider.Creating, false},
		`{"provisioning":{"state":"running","phase":"deleting"}}`:                                                        {provider.Deleting, false},
		`{"provisioning":{"state":"failed","phase":"failed","error":{"code":"CREATE_FAILED","message":"no"}}}`:           {provider.Failed, false},
		`{"info":{"status":"error"}}`:                                                                                    {provider.Failed, false},
	} {
		state, up, err := oblienprovider.State(object)
		if err != nil || state != want.state || up != want.up {
			t.Errorf("%s: %s, %v, %v; want %s, %v", object, state, up, err, want.state, want.up)
		}
	}
}

func TestArchiveStaysInside(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	for _, c := range []struct {
		ok      bool
		entries []tar.Header
	}{
		{true, []tar.Header{file("a/b"), link("a/c", "../d"), link("e", "a/c")}},
		{true, []tar.Header{file("./a"), {Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}}},
		{false, []tar.Header{link("a", "../b")}},
		{false, []tar.Header{link("here", "."), link("up", "here/..")}},
		{false, []tar.Header{link("a", "b"), file("a/c")}},
		{false, []tar.Header{file("a"), file("a/b")}},
		{false, []tar.Header{file("a"), link("a", "b")}},
		{false, []tar.Header{{Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}}},
		{false, []tar.Header{{Typeflag: tar.TypeFifo, Name: "a"}}},
		{false, []tar.Header{file("a\x00b")}},
	} {
		if err := oblienprovider.Archive(c.entries...); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.entries, err)
		}
	}
}

func TestParsers(t *testing.T) {
	if got := oblienprovider.CPUTime("hz 100\nended 0m1.250s 1m0.750000s\nruns 100 50 25 25\nruns x\n"); got != 64*time.Second {
		t.Errorf("cpuTime: %v", got)
	}
	for record, want := range map[string]provider.Exit{
		"0 1700000000 0\n":   {At: time.Unix(1700000000, 0)},
		"75 0 0\n":           {Code: 75},
		"255 0 0":            {Code: 255},
		"137 1700000000 1\n": {Code: 137, Signal: "SIGKILL", OOM: true, At: time.Unix(1700000000, 0)},
		"143 0 0\n":          {Code: 143, Signal: "SIGTERM"},
	} {
		if got, err := oblienprovider.ParseExit(record); err != nil || got != want {
			t.Errorf("parseExit(%q): %+v, %v; want %+v", record, got, err, want)
		}
	}
	if _, err := oblienprovider.ParseExit("garbage"); err == nil {
		t.Error("parseExit of garbage is no error")
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "2": 2 * time.Second, "0.5": time.Second / 2, "-1": 0, "soon": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := oblienprovider.RetryAfter(header, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", header, got, want)
		}
	}
	for slug, want := range map[string][2]string{"freshet-a-b-tok": {"a-b", "tok"}, "freshet--tok": {"", "tok"}} {
		if owner, token, ours := oblienprovider.ParseSlug(slug); !ours || owner != want[0] || token != want[1] {
			t.Errorf("%q: %q, %q, %v", slug, owner, token, ours)
		}
	}
	for _, slug := range []string{"", "other", "freshet", "freshet-x", "freshet-x-"} {
		if _, _, ours := oblienprovider.ParseSlug(slug); ours {
			t.Errorf("%q is taken for ours", slug)
		}
	}
}
