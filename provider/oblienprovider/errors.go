package oblienprovider

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// failure is Oblien's word for why a call failed.
type failure struct {
	Success    *bool           `json:"success"`
	Error      json.RawMessage `json:"error"` // the code, or a sentence
	Code       json.RawMessage `json:"code"`
	Message    string          `json:"message"`
	RequestID  string          `json:"requestId"`
	RequestID2 string          `json:"request_id"`
	Current    json.Number     `json:"current"` // of a limit
	Max        json.Number     `json:"max"`
}

// The status that comes with a code differs between deployments, so the code decides.
var classes = map[string]error{
	"SANDBOX_LIMIT_REACHED":   provider.ErrQuota,
	"NAMESPACE_LIMIT_REACHED": provider.ErrQuota,
	"POOL_LIMIT_REACHED":      provider.ErrQuota,
	"RUNNING_POOL_REACHED":    provider.ErrQuota,
	"quota_exceeded":          provider.ErrInvalid, // this one workspace is too large for the plan
	"quota_unavailable":       provider.ErrUnavailable,
	"VM_UNAVAILABLE":          provider.ErrUnavailable,
	"payment_required":        provider.ErrSuspended,
	"namespace_suspended":     provider.ErrSuspended,
	"authentication_error":    provider.ErrUnauthorized,
	"unauthorized":            provider.ErrUnauthorized,
	"invalid_credentials":     provider.ErrUnauthorized,
	"missing_credentials":     provider.ErrUnauthorized,
	"token_expired":           provider.ErrUnauthorized,
	"forbidden":               provider.ErrUnauthorized,
	"not_found":               provider.ErrNotFound,
	"conflict":                provider.ErrConflict,
	"bad_request":             provider.ErrInvalid,
	"validation_error":        provider.ErrInvalid,
	"invalid_image":           provider.ErrInvalid,
	"invalid_resource":        provider.ErrInvalid,
	"rate_limited":            provider.ErrRateLimited,
}

var codeLike = regexp.MustCompile(`^([a-z0-9]+([_-][a-z0-9]+)*|[A-Z0-9]+(_[A-Z0-9]+)+)$`)

// code is the code of a failure; "": none.
func (f *failure) code() string {
	var s string
	if json.Unmarshal(f.Code, &s) == nil && s != "" {
		return s
	}
	if json.Unmarshal(f.Error, &s) == nil && codeLike.MatchString(s) {
		return s
	}
	return ""
}

// words say what went wrong, as Oblien put it.
func (f *failure) words() string {
	words := f.Message
	if words == "" {
		var s string
		if json.Unmarshal(f.Error, &s) == nil {
			words = s
		}
	}
	if f.Max != "" {
		words = strings.TrimSpace(words + fmt.Sprintf(" (%s of %s)", orElse(f.Current.String(), "?"), f.Max))
	}
	return words
}

// refused makes the error of an answer that is a failure, or nil. effect: the call was to change something.
func (p *Provider) refused(op string, effect bool, resp *http.Response, body []byte, secrets ...string) error {
	var f failure
	known := json.Unmarshal(body, &f) == nil
	ok := resp.StatusCode >= 200 && resp.StatusCode < 300
	if ok && (!known || f.Success == nil || *f.Success) {
		return nil
	}
	code := f.code()
	class, told := classes[code]
	if !told {
		class = classOf(resp.StatusCode, effect)
	}
	e := &provider.Error{Op: op, Class: class, RequestID: orElse(f.RequestID, orElse(f.RequestID2, resp.Header.Get("X-Request-Id")))}
	if errors.Is(class, provider.ErrRateLimited) || errors.Is(class, provider.ErrUnavailable) {
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	text := fmt.Sprintf("status %d", resp.StatusCode)
	if code != "" {
		text += " " + code
	}
	if words := f.words(); words != "" && words != code {
		text += ": " + words
	}
	e.Err = errors.New(p.redact(text, secrets...))
	e.RequestID = p.redact(e.RequestID, secrets...)
	return e
}

func classOf(status int, effect bool) error {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired:
		return provider.ErrUnauthorized
	case status == http.StatusPaymentRequired:
		return provider.ErrSuspended
	case status == http.StatusNotFound, status == http.StatusGone:
		return provider.ErrNotFound
	case status == http.StatusConflict, status == http.StatusLocked:
		return provider.ErrConflict
	case status == http.StatusTooManyRequests:
		return provider.ErrRateLimited
	case status == http.StatusRequestTimeout, status == http.StatusServiceUnavailable:
		return provider.ErrUnavailable
	case status >= 300 && status < 500:
		return provider.ErrInvalid
	case effect:
		return provider.ErrAmbiguous // a gateway that lost the answer, or a failure half-way; also 200 without a known code
	}
	return provider.ErrUnavailable
}

// retryAfter reads the header: seconds or a date.
func retryAfter(header string, now time.Time) time.Duration {
	if s, err := strconv.ParseFloat(header, 64); err == nil && s > 0 && s < 1e6 {
		return time.Duration(s * float64(time.Second))
	}
	if at, err := http.ParseTime(header); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// redact takes credentials out of what somebody else wrote.
func (p *Provider) redact(text string, secrets ...string) string {
	for _, s := range append(secrets, p.secrets...) {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	if len(text) > 500 {
		text = text[:500] + "…"
	}
	return text
}

// fail makes an error of this package's own finding.
func fail(op string, class error, format string, args ...any) error {
	return &provider.Error{Op: op, Class: class, Err: fmt.Errorf(format, args...)}
}
