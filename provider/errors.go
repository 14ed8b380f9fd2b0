package provider

import (
	"context"
	"errors"
	"strings"
	"time"
)

// The classes of failure. Each has one meaning for the dispatcher, which asks with errors.Is.
var (
	// ErrNotFound: it does not exist, or not any more. What is not found is gone for good.
	ErrNotFound = errors.New("provider: not found")
	// ErrConflict: the workspace is in the wrong state for this call. Observe it, then decide.
	ErrConflict = errors.New("provider: conflict")
	// ErrExists: the name or token is in use. Adopt what is there.
	ErrExists = errors.New("provider: already exists")
	// ErrQuota: the account may not have more. Nothing was made; no growth until something is freed.
	ErrQuota = errors.New("provider: quota exceeded")
	// ErrNoCapacity: the provider is full. Nothing was made; later.
	ErrNoCapacity = errors.New("provider: no capacity")
	// ErrRateLimited: too many requests. Nothing happened; slower, after Error.RetryAfter if set.
	ErrRateLimited = errors.New("provider: rate limited")
	// ErrUnavailable: the provider does not answer, or says that it cannot now. Nothing happened; later. It says
	// nothing about any workspace.
	ErrUnavailable = errors.New("provider: unavailable")
	// ErrAmbiguous: the request may have had its effect. Look before repeating.
	ErrAmbiguous = errors.New("provider: outcome unknown")
	// ErrSuspended: the account is not paid or is blocked. An operator must act; deleting still works.
	ErrSuspended = errors.New("provider: account suspended")
	// ErrUnauthorized: the credentials are wrong or lack a right. An operator must act.
	ErrUnauthorized = errors.New("provider: unauthorized")
	// ErrInvalid: the request is wrong and will be wrong tomorrow.
	ErrInvalid = errors.New("provider: invalid request")
	// ErrLost: the workspace or process ended by itself (its node died, it ran out of time or memory).
	ErrLost = errors.New("provider: lost")
)

// Error carries what a sentinel cannot. errors.Is finds its Class and its cause.
type Error struct {
	Op         string        // "create", "get", …
	Class      error         // one of the Err values of this package
	RetryAfter time.Duration // with ErrRateLimited and ErrUnavailable, when the provider told; else 0
	RequestID  string        // the provider's, for its support; "": none
	Err        error         // the cause; may be nil; without credentials
}

// Error says op, class, cause and request id.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Class.Error())
	if e.Op != "" {
		b.WriteString(" (" + e.Op + ")")
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.RequestID != "" {
		b.WriteString(" [request " + e.RequestID + "]")
	}
	return b.String()
}

// Unwrap gives the class and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.Err}
}

// Retryable says whether the same call may succeed later although nothing about it changes. An error that no class
// describes counts as retryable: it is more often a network than a verdict.
func Retryable(err error) bool {
	for _, final := range []error{ErrInvalid, ErrUnauthorized, ErrSuspended, ErrNotFound, ErrExists, ErrUnsupported, context.Canceled} {
		if errors.Is(err, final) {
			return false
		}
	}
	return err != nil
}

// RetryAfter is the pause that the provider asked for in err; 0: none.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
