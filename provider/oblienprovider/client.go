package oblienprovider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// How long one call may take. There is no time-out for all: some calls answer when a machine has changed its state.
const (
	quickTime  = 30 * time.Second
	createTime = time.Minute
	powerTime  = 10 * time.Minute
	maxAnswer  = 32 << 20
)

// request is one call.
type request struct {
	op     string // of provider.Error
	method string
	path   string
	query  url.Values
	body   any           // sent as JSON
	file   *spool        // sent as it is, instead of body
	effect bool          // it changes something: a lost answer leaves the outcome unknown
	limit  time.Duration // 0: quickTime
}

// do calls the control plane and decodes the answer into out, unless that is nil.
func (p *Provider) do(ctx context.Context, r request, out any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	token := ""
	if p.cfg.Token != nil {
		var err error
		if token, err = p.cfg.Token(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &provider.Error{Op: r.op, Class: provider.ErrUnavailable, Err: errors.New("Config.Token gave no token")}
		}
	}
	return p.exchange(ctx, p.control, r, out, func(h http.Header) {
		if token != "" {
			h.Set("Authorization", "Bearer "+token)
			return
		}
		h.Set("X-Client-ID", p.cfg.ClientID)
		h.Set("X-Client-Secret", p.cfg.ClientSecret)
	}, token)
}

// exchange sends a request and decodes its answer. secrets must not get into an error.
func (p *Provider) exchange(parent context.Context, base string, r request, out any, sign func(http.Header), secrets ...string) error {
	limit := r.limit
	if limit == 0 {
		limit = quickTime
	}
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	resp, err := p.send(ctx, parent, base, r, sign)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return lost(parent, r, true, err)
	}
	if err := p.refused(r.op, r.effect, resp, body, secrets...); err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		class := provider.ErrUnavailable
		if r.effect {
			class = provider.ErrAmbiguous
		}
		return fail(r.op, class, "the answer is no JSON of the expected form")
	}
	return nil
}

// send sends a request and returns its answer, whatever its status. parent is the caller's context, ctx the one with the
// time-out of this call.
func (p *Provider) send(ctx, parent context.Context, base string, r request, sign func(http.Header)) (*http.Response, error) {
	var sent atomic.Bool // something may have reached the server
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	address := base + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	var body io.Reader
	switch {
	case r.file != nil:
		body = r.file.reader()
	case r.body != nil:
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, fail(r.op, provider.ErrInvalid, "the request cannot be encoded as JSON")
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return nil, fail(r.op, provider.ErrInvalid, "the request's address is wrong")
	}
	if r.file != nil {
		req.ContentLength = r.file.size
		req.Header.Set("Content-Type", "application/gzip")
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	sign(req.Header)
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, lost(parent, r, sent.Load(), err)
	}
	return resp, nil
}

// lost is the error of a call without an answer.
func lost(parent context.Context, r request, sent bool, err error) error {
	unknown := r.effect && sent
	if cause := parent.Err(); cause != nil {
		if unknown {
			return &provider.Error{Op: r.op, Class: provider.ErrAmbiguous, Err: cause}
		}
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the address says nothing new
	}
	class := provider.ErrUnavailable
	if unknown {
		class = provider.ErrAmbiguous
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("no answer in time") // our own deadline: not the caller's
	}
	return &provider.Error{Op: r.op, Class: class, Err: err}
}
