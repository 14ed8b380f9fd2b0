package oblienprovider_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/oblienprovider"
)

// answering is a server that gives one answer to all.
func answering(t *testing.T, status int, header http.Header, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

var request = provider.CreateRequest{Token: "token1", Owner: "owner", Agent: "Agent.1"}

func TestErrorsByCodeThenStatus(t *testing.T) {
	coded := func(code string) string { return fmt.Sprintf(`{"success":false,"error":%q,"message":"why"}`, code) }
	for _, c := range []struct {
		status int
		body   string
		create error // of Create
		get    error // of Get; nil: the same
	}{
		{409, coded("SANDBOX_LIMIT_REACHED"), provider.ErrQuota, nil},
		{200, coded("SANDBOX_LIMIT_REACHED"), provider.ErrQuota, nil},
		{402, coded("NAMESPACE_LIMIT_REACHED"), provider.ErrQuota, nil},
		{403, coded("POOL_LIMIT_REACHED"), provider.ErrQuota, nil},
		{402, coded("RUNNING_POOL_REACHED"), provider.ErrQuota, nil},
		{409, `{"success":false,"code":"POOL_LIMIT_REACHED","error":"A sentence.","current":3,"max":3}`, provider.ErrQuota, nil},
		{403, coded("quota_exceeded"), provider.ErrInvalid, nil},
		{503, coded("quota_unavailable"), provider.ErrUnavailable, nil},
		{503, coded("VM_UNAVAILABLE"), provider.ErrUnavailable, nil},
		{402, coded("payment_required"), provider.ErrSuspended, nil},
		{402, ``, provider.ErrSuspended, nil},
		{403, coded("namespace_suspended"), provider.ErrSuspended, nil},
		{401, coded("invalid_credentials"), provider.ErrUnauthorized, nil},
		{401, coded("token_expired"), provider.ErrUnauthorized, nil},
		{401, `no JSON`, provider.ErrUnauthorized, nil},
		{403, coded("forbidden"), provider.ErrUnauthorized, nil},
		{404, coded("not_found"), provider.ErrInvalid, provider.ErrNotFound}, // of a create: the image or namespace
		{409, coded("conflict"), provider.ErrAmbiguous, provider.ErrConflict},
		{400, coded("invalid_image"), provider.ErrInvalid, nil},
		{422, coded("validation_error"), provider.ErrInvalid, nil},
		{418, `{"error":"I am a teapot"}`, provider.ErrInvalid, nil},
		{302, ``, provider.ErrInvalid, nil},
		{429, coded("rate_limited"), provider.ErrRateLimited, nil},
		{429, ``, provider.ErrRateLimited, nil},
		{503, `<html>`, provider.ErrUnavailable, nil},
		{500, `{"error":"oops"}`, provider.ErrAmbiguous, provider.ErrUnavailable},
		{502, ``, provider.ErrAmbiguous, provider.ErrUnavailable},
		{504, ``, provider.ErrAmbiguous, provider.ErrUnavailable},
		{200, `{"success":false,"error":"Something new."}`, provider.ErrAmbiguous, provider.ErrUnavailable},
		{200, `<html>`, provider.ErrAmbiguous, provider.ErrUnavailable},
		{200, `{}`, provider.ErrAmbiguous, provider.ErrUnavailable},
	} {
		p := open(t, answering(t, c.status, nil, c.body))
		_, err := p.Create(t.Context(), request)
		if !errors.Is(err, c.create) {
			t.Errorf("Create: status %d, %s: %v, want %v", c.status, c.body, err, c.create)
		}
		want := c.get
		if want == nil {
			want = c.create
		}
		if _, err := p.Get(t.Context(), "ws_1"); !errors.Is(err, want) {
			t.Errorf("Get: status %d, %s: %v, want %v", c.status, c.body, err, want)
		}
	}
}

func TestErrorKeepsRequestIDAndRetryAfter(t *testing.T) {
	url := answering(t, 429, http.Header{"Retry-After": {"3"}}, `{"success":false,"code":"rate_limited","requestId":"req-7"}`)
	_, err := open(t, url).Create(t.Context(), request)
	var e *provider.Error
	if !errors.As(err, &e) || e.RequestID != "req-7" || provider.RetryAfter(err) != 3*time.Second {
		t.Errorf("%#v", e)
	}
	_, err = open(t, answering(t, 500, http.Header{"X-Request-Id": {"req-8"}}, "")).Get(t.Context(), "ws_1")
	if !strings.Contains(err.Error(), "req-8") {
		t.Errorf("%v", err)
	}
}

func TestErrorsHoldNoCredentials(t *testing.T) {
	const secret, token = "the client's own secret", "the bearer's own token"
	url := answering(t, 401, nil, `{"success":false,"code":"invalid_credentials","message":"bad: `+secret+` and `+token+`","requestId":"`+secret+`"}`)
	for _, cfg := range []oblienprovider.Config{
		{ClientID: "id", ClientSecret: secret, ControlURL: url, RuntimeURL: url},
		{Account: "a", Token: func(context.Context) (string, error) { return token, nil }, ControlURL: url, RuntimeURL: url},
	} {
		p := oblienprovider.New(cfg)
		_, err := p.Create(t.Context(), request)
		if cfg.ClientSecret != "" && strings.Contains(err.Error(), secret) || cfg.Token != nil && strings.Contains(err.Error(), token) {
			t.Errorf("%v", err)
		}
	}
	p := oblienprovider.New(oblienprovider.Config{Account: "a", ControlURL: url, RuntimeURL: url,
		Token: func(context.Context) (string, error) { return "", errors.New("refused: " + secret) }})
	if _, err := p.Get(t.Context(), "ws_1"); !errors.Is(err, provider.ErrUnavailable) || strings.Contains(err.Error(), secret) {
		t.Errorf("%v", err)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	p := open(t, answering(t, 307, http.Header{"Location": {elsewhere.URL}}, ""))
	if _, err := p.Create(t.Context(), request); !errors.Is(err, provider.ErrInvalid) {
		t.Errorf("Create: %v", err)
	}
	if asked.Load() > 0 {
		t.Error("the credentials were carried elsewhere")
	}
}

func TestNobodyListens(t *testing.T) {
	s := httptest.NewServer(nil)
	url := s.URL
	s.Close()
	if _, err := open(t, url).Create(t.Context(), request); !errors.Is(err, provider.ErrUnavailable) || errors.Is(err, provider.ErrAmbiguous) {
		t.Errorf("Create: %v, want ErrUnavailable: nothing was sent", err)
	}
}

func TestScope(t *testing.T) {
	token := func(context.Context) (string, error) { return "", nil }
	scope := func(cfg oblienprovider.Config) string {
		s, err := oblienprovider.New(cfg).Scope(t.Context())
		if err != nil {
			t.Error(err)
		}
		return s
	}
	a := scope(oblienprovider.Config{ClientID: "a", ClientSecret: "s"})
	for name, other := range map[string]oblienprovider.Config{
		"account":   {ClientID: "b", ClientSecret: "s"},
		"namespace": {ClientID: "a", ClientSecret: "s", Namespace: "n"},
		"service":   {ClientID: "a", ClientSecret: "s", ControlURL: "https://example.test"},
	} {
		if scope(other) == a {
			t.Errorf("another %s has the same scope", name)
		}
	}
	if scope(oblienprovider.Config{Account: "a", Token: token}) != a || scope(oblienprovider.Config{ClientID: "new", ClientSecret: "t", Account: "a"}) != a {
		t.Error("another key of the account has another scope")
	}
	for _, bad := range []oblienprovider.Config{
		{}, {ClientID: "a"}, {Token: token}, {ClientID: "a", ClientSecret: "s", Token: token}, {ClientID: "a", ClientSecret: "s", ControlURL: "api"},
	} {
		if _, err := oblienprovider.New(bad).Scope(t.Context()); !errors.Is(err, provider.ErrInvalid) {
			t.Errorf("Scope of %+v: %v", bad, err)
		}
	}
}
