package oblienprovider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/freshet-dev/freshet/provider"
)

const slugPrefix = "freshet-"

// slugOf marks a workspace as owner's, made with token. A token holds no hyphen, so the two can be told apart again.
func slugOf(owner, token string) string { return slugPrefix + owner + "-" + token }

func parseSlug(slug string) (owner, token string, ours bool) {
	rest, ours := strings.CutPrefix(slug, slugPrefix)
	at := strings.LastIndexByte(rest, '-')
	if !ours || at < 0 || at == len(rest)-1 {
		return "", "", false
	}
	return rest[:at], rest[at+1:], true
}

// nameOf holds the agent, and a mark by which a repeated create with another spec is told from one with the same.
func nameOf(agent, mark string) string { return agent + " #" + mark }

func agentOf(name string) string {
	agent, _, _ := strings.Cut(name, " #")
	return agent
}

// Create sends the workspace's token as the idempotency key of the call. Spec.Options is nil or an Options.
func (p *Provider) Create(ctx context.Context, req provider.CreateRequest) (provider.Workspace, error) {
	body, err := p.body(req)
	if err != nil {
		return provider.Workspace{}, err
	}
	var answer struct {
		Workspace machine `json:"workspace"`
	}
	err = p.do(ctx, request{op: "create", method: http.MethodPost, path: "/workspace", body: body, effect: true, limit: createTime}, &answer)
	m := &answer.Workspace
	switch {
	case errors.Is(err, provider.ErrNotFound):
		// The image or the namespace is not there: nothing that was made and is gone.
		return provider.Workspace{}, reclass(err, provider.ErrInvalid)
	case errors.Is(err, provider.ErrConflict):
		if m, err = p.rival(ctx, body.Slug, err); err != nil {
			return provider.Workspace{}, err
		}
	case err != nil:
		return provider.Workspace{}, err
	case m.ID == "":
		return provider.Workspace{}, fail("create", provider.ErrAmbiguous, "the answer names no workspace")
	}
	if m.Slug != body.Slug || m.Name != body.Name || m.Namespace != body.Namespace {
		return provider.Workspace{}, fail("create", provider.ErrExists, "the token was used for another spec, or its slug is taken")
	}
	if err := p.findable(ctx, m.ID); err != nil {
		return provider.Workspace{}, err
	}
	owner, token, _ := parseSlug(body.Slug)
	_ = p.do(ctx, request{op: "create", method: http.MethodPut, path: at(m.ID, "metadata"), effect: true, body: map[string]any{
		"metadata": map[string]string{"freshet_owner": owner, "freshet_token": token, "freshet_agent": req.Agent},
	}}, nil) // for people and other programs; nothing here reads it
	return p.view(m, ""), nil
}

// rival finds the workspace that stands in the way of a create.
func (p *Provider) rival(ctx context.Context, slug string, conflict error) (*machine, error) {
	m, err := p.fetch(ctx, "create", slug)
	switch {
	case errors.Is(err, provider.ErrNotFound):
		return nil, conflict
	case err != nil && ctx.Err() != nil:
		return nil, &provider.Error{Op: "create", Class: provider.ErrAmbiguous, Err: ctx.Err()}
	case err != nil:
		return nil, reclass(err, provider.ErrAmbiguous)
	}
	return m, nil
}

// findable makes sure, once, that these credentials find what they create in a namespace. If they did not, every
// workspace would seem to be gone as soon as it is made.
func (p *Provider) findable(ctx context.Context, id string) error {
	p.verified.mu.Lock()
	done := p.verified.namespace || p.cfg.Namespace == ""
	p.verified.mu.Unlock()
	if done {
		return nil
	}
	_, err := p.fetch(ctx, "create", id)
	switch {
	case errors.Is(err, provider.ErrNotFound):
		_ = p.Delete(ctx, id) // its time-out is the last resort
		return fail("create", provider.ErrUnauthorized, "the credentials can create in namespace %q, but not find it again: they must be scoped to it", p.cfg.Namespace)
	case err != nil:
		return nil // the next create looks again
	}
	p.verified.mu.Lock()
	p.verified.namespace = true
	p.verified.mu.Unlock()
	return nil
}

func (p *Provider) body(req provider.CreateRequest) (*createBody, error) {
	const small = "abcdefghijklmnopqrstuvwxyz0123456789"
	spec, r := req.Spec, req.Spec.Resources
	switch {
	case req.Token == "" || len(req.Token) > 26 || strings.Trim(req.Token, small) != "":
		return nil, fail("create", provider.ErrInvalid, "token: want 1 to 26 of [a-z0-9]")
	case len(req.Owner) > 26 || strings.Trim(req.Owner, small+"-") != "":
		return nil, fail("create", provider.ErrInvalid, "owner: want at most 26 of [a-z0-9-]")
	case len(req.Agent) > 40 || strings.ContainsAny(req.Agent, " #"):
		return nil, fail("create", provider.ErrInvalid, "agent: want at most 40 of [a-zA-Z0-9._-]")
	case spec.Snapshot != "":
		return nil, fail("create", provider.ErrInvalid, "there are no snapshots to boot from")
	case r.CPU < 0 || math.IsNaN(r.CPU) || math.IsInf(r.CPU, 0) || r.MemoryMB < 0 || r.DiskMB < 0:
		return nil, fail("create", provider.ErrInvalid, "resources %+v", r)
	}
	opts, err := options(spec.Options)
	if err != nil {
		return nil, err
	}
	config := map[string]any{}
	for key, value := range opts.Config {
		if slices.Contains([]string{"cpus", "memory_mb", "disk_size_mb", "writable_size_mb", "ttl", "ttl_action", "remove_on_exit", "env", "cmd", "workloads"}, key) {
			return nil, fail("create", provider.ErrInvalid, "Options.Config may not hold %q", key)
		}
		config[key] = value
	}
	if r.CPU > 0 {
		config["cpus"] = r.CPU
	}
	if r.MemoryMB > 0 {
		config["memory_mb"] = r.MemoryMB
	}
	if r.DiskMB > 0 {
		config["disk_size_mb"] = r.DiskMB
	}
	mark, err := json.Marshal([]any{req.Agent, spec.Image, config})
	if err != nil {
		return nil, fail("create", provider.ErrInvalid, "Options cannot be encoded as JSON")
	}
	sum := sha256.Sum256(mark)
	config["ttl"] = int(p.cfg.TTL.Seconds())
	config["ttl_action"] = "remove"
	return &createBody{
		Name:           nameOf(req.Agent, hex.EncodeToString(sum[:6])),
		Slug:           slugOf(req.Owner, req.Token),
		Image:          spec.Image,
		Namespace:      p.cfg.Namespace,
		Mode:           "temporary", // always said: the default is another one in different places
		IdempotencyKey: slugOf(req.Owner, req.Token),
		Config:         config,
	}, nil
}

// options reads Spec.Options, which may have been through JSON.
func options(from any) (Options, error) {
	var o Options
	if from == nil {
		return o, nil
	}
	b, err := json.Marshal(from)
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		err = dec.Decode(&o)
	}
	if err != nil {
		return o, fail("create", provider.ErrInvalid, "Spec.Options is no oblienprovider.Options")
	}
	return o, nil
}

// Find asks for the slug that is made of owner and token.
func (p *Provider) Find(ctx context.Context, owner, token string) (provider.Workspace, error) {
	m, err := p.fetch(ctx, "find", slugOf(owner, token))
	if err != nil {
		return provider.Workspace{}, err
	}
	if m.Slug != slugOf(owner, token) || m.Namespace != p.cfg.Namespace {
		return provider.Workspace{}, fail("find", provider.ErrNotFound, "no workspace of this token")
	}
	return p.observe(ctx, m), nil
}

// fetch gets the object of a workspace by id or slug.
func (p *Provider) fetch(ctx context.Context, op, idOrSlug string) (*machine, error) {
	if idOrSlug == "" || strings.Trim(idOrSlug, ".") == "" {
		return nil, fail(op, provider.ErrNotFound, "no id")
	}
	var answer struct {
		Workspace machine `json:"workspace"`
	}
	if err := p.do(ctx, request{op: op, method: http.MethodGet, path: at(idOrSlug)}, &answer); err != nil {
		return nil, err
	}
	if answer.Workspace.ID == "" {
		return nil, fail(op, provider.ErrUnavailable, "the answer names no workspace")
	}
	return &answer.Workspace, nil
}

// at is the path of a workspace, or of something of it.
func at(id string, names ...string) string {
	path := "/workspace/" + url.PathEscape(id)
	for _, n := range names {
		path += "/" + n
	}
	return path
}

// reclass gives an error of this package another class.
func reclass(err, class error) error {
	var e *provider.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%w: %w", class, err)
	}
	other := *e
	other.Class = class
	return &other
}
