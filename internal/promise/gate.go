package promise

import (
	"context"
	"io"
	"time"

	"github.com/freshet-dev/freshet/store"
)

// Gate is asked at each call of a store, twice: before the call has its effect, and between the effect and the answer.
// op is the name of the method. An error is what the caller gets: in the first case nothing happened, in the second it
// did and nobody knows. It may also wait, or stop the caller for good. It is called from many goroutines.
type Gate func(ctx context.Context, op string, after bool) error

// Through returns s behind a gate, with the abilities of s: the connection of one dispatcher, which a test can slow down,
// disturb or cut. Hints do not pass the gate.
func Through(g Gate, s store.Store) store.Store {
	var liner store.Liner
	if l, ok := s.(store.Liner); ok {
		liner = gatedLiner{g, l}
	}
	var blobs store.Blobs
	if b, ok := s.(store.Blobs); ok {
		blobs = gatedBlobs{g, b}
	}
	return join(gated{g, s}, s, liner, blobs)
}

func pass[T any](ctx context.Context, g Gate, op string, call func() (T, error)) (T, error) {
	var none T
	if err := g(ctx, op, false); err != nil {
		return none, err
	}
	v, err := call()
	if err != nil {
		return v, err
	}
	if err := g(ctx, op, true); err != nil {
		return none, err
	}
	return v, nil
}

func passErr(ctx context.Context, g Gate, op string, call func() error) error {
	_, err := pass(ctx, g, op, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

type gated struct {
	g Gate
	s store.Store
}

func (s gated) Open(ctx context.Context) (store.Info, error) {
	return pass(ctx, s.g, "Open", func() (store.Info, error) { return s.s.Open(ctx) })
}

func (s gated) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	return pass(ctx, s.g, "Acquire", func() (bool, error) { return s.s.Acquire(ctx, name, holder, ttl) })
}

func (s gated) Submit(ctx context.Context, req store.SubmitRequest) ([]string, error) {
	return pass(ctx, s.g, "Submit", func() ([]string, error) { return s.s.Submit(ctx, req) })
}

func (s gated) QueryTasks(ctx context.Context, q store.TaskQuery) ([]store.Task, error) {
	return pass(ctx, s.g, "QueryTasks", func() ([]store.Task, error) { return s.s.QueryTasks(ctx, q) })
}

func (s gated) Events(ctx context.Context, task string, after int64, n int) ([]store.Event, error) {
	return pass(ctx, s.g, "Events", func() ([]store.Event, error) { return s.s.Events(ctx, task, after, n) })
}

func (s gated) End(ctx context.Context, task string, e store.Ending) error {
	return passErr(ctx, s.g, "End", func() error { return s.s.End(ctx, task, e) })
}

func (s gated) Acknowledge(ctx context.Context, tasks []string) error {
	return passErr(ctx, s.g, "Acknowledge", func() error { return s.s.Acknowledge(ctx, tasks) })
}

func (s gated) Remove(ctx context.Context, tasks []string) error {
	return passErr(ctx, s.g, "Remove", func() error { return s.s.Remove(ctx, tasks) })
}

func (s gated) Begin(ctx context.Context, a store.Admission, reqs []store.BeginRequest) ([]store.Begun, error) {
	return pass(ctx, s.g, "Begin", func() ([]store.Begun, error) { return s.s.Begin(ctx, a, reqs) })
}

func (s gated) Adopt(ctx context.Context, a store.Admission, n int) ([]store.Begun, error) {
	return pass(ctx, s.g, "Adopt", func() ([]store.Begun, error) { return s.s.Adopt(ctx, a, n) })
}

func (s gated) Renew(ctx context.Context, leases []store.Lease, ttl time.Duration) ([]store.LeaseState, error) {
	return pass(ctx, s.g, "Renew", func() ([]store.LeaseState, error) { return s.s.Renew(ctx, leases, ttl) })
}

func (s gated) Detach(ctx context.Context, leases []store.Lease) error {
	return passErr(ctx, s.g, "Detach", func() error { return s.s.Detach(ctx, leases) })
}

func (s gated) Save(ctx context.Context, l store.Lease, save store.Save) error {
	return passErr(ctx, s.g, "Save", func() error { return s.s.Save(ctx, l, save) })
}

func (s gated) Entries(ctx context.Context, task string, kind store.EntryKind) ([]store.Entry, error) {
	return pass(ctx, s.g, "Entries", func() ([]store.Entry, error) { return s.s.Entries(ctx, task, kind) })
}

func (s gated) Finish(ctx context.Context, outs []store.Outcome) ([]store.Finished, error) {
	return pass(ctx, s.g, "Finish", func() ([]store.Finished, error) { return s.s.Finish(ctx, outs) })
}

func (s gated) PutWorkspace(ctx context.Context, l store.Lease, limits *store.Limits, w store.Workspace) (int64, error) {
	return pass(ctx, s.g, "PutWorkspace", func() (int64, error) { return s.s.PutWorkspace(ctx, l, limits, w) })
}

func (s gated) QueryWorkspaces(ctx context.Context, q store.WorkspaceQuery) ([]store.Workspace, error) {
	return pass(ctx, s.g, "QueryWorkspaces", func() ([]store.Workspace, error) { return s.s.QueryWorkspaces(ctx, q) })
}

func (s gated) SetLimits(ctx context.Context, l *store.Limits) error {
	return passErr(ctx, s.g, "SetLimits", func() error { return s.s.SetLimits(ctx, l) })
}

func (s gated) SetTenantLimits(ctx context.Context, tenant string, l *store.TenantLimits) error {
	return passErr(ctx, s.g, "SetTenantLimits", func() error { return s.s.SetTenantLimits(ctx, tenant, l) })
}

func (s gated) SetHold(ctx context.Context, h store.Hold) error {
	return passErr(ctx, s.g, "SetHold", func() error { return s.s.SetHold(ctx, h) })
}

func (s gated) Usage(ctx context.Context, defaults *store.Limits, tenant, agent string) (store.Usage, error) {
	return pass(ctx, s.g, "Usage", func() (store.Usage, error) { return s.s.Usage(ctx, defaults, tenant, agent) })
}

func (s gated) Counts(ctx context.Context) (map[string]store.Counts, error) {
	return pass(ctx, s.g, "Counts", func() (map[string]store.Counts, error) { return s.s.Counts(ctx) })
}

type gatedLiner struct {
	g Gate
	l store.Liner
}

func (s gatedLiner) ClaimBegin(ctx context.Context, a store.Admission, n int) (store.Claimed, error) {
	return pass(ctx, s.g, "ClaimBegin", func() (store.Claimed, error) { return s.l.ClaimBegin(ctx, a, n) })
}

type gatedBlobs struct {
	g Gate
	b store.Blobs
}

func (s gatedBlobs) Put(ctx context.Context, key string, r io.Reader) error {
	return passErr(ctx, s.g, "Put", func() error { return s.b.Put(ctx, key, r) })
}

func (s gatedBlobs) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	return pass(ctx, s.g, "Get", func() (io.ReadCloser, error) { return s.b.Get(ctx, key) })
}

func (s gatedBlobs) Delete(ctx context.Context, keys ...string) error {
	return passErr(ctx, s.g, "Delete", func() error { return s.b.Delete(ctx, keys...) })
}
