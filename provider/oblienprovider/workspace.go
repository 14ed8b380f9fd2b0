package oblienprovider

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/freshet-dev/freshet/provider"
)

const (
	pageSize   = 500 // more workspaces in one answer are fewer that can slip from one page to another meanwhile
	listPasses = 3
	doorsAt    = 16 // doorways that one List opens at once
)

// Get asks the control plane, and the workspace's runtime until that has answered once.
func (p *Provider) Get(ctx context.Context, id string) (provider.Workspace, error) {
	m, err := p.fetch(ctx, "get", id)
	if err != nil {
		if errors.Is(err, provider.ErrNotFound) {
			p.forget(id)
		}
		return provider.Workspace{}, err
	}
	if m.ID != id {
		return provider.Workspace{}, fail("get", provider.ErrNotFound, "no workspace of this id")
	}
	return p.observe(ctx, m), nil
}

// observe is view, after a look at the runtime: the control plane may call a workspace ready before its runtime answers.
func (p *Provider) observe(ctx context.Context, m *machine) provider.Workspace {
	state, up, _ := m.state()
	if state != provider.Running || !up {
		return p.view(m, "")
	}
	if err := p.arrive(ctx, m.ID); err != nil {
		return p.view(m, "its runtime does not answer: "+err.Error())
	}
	return p.view(m, "")
}

// view is what the provider tells of a workspace without asking further.
func (p *Provider) view(m *machine, why string) provider.Workspace {
	owner, token, _ := parseSlug(m.Slug)
	w := provider.Workspace{
		ID: m.ID, Token: token, Owner: owner, Agent: agentOf(m.Name),
		Home: p.doorways.home(m.ID), Created: timeOf(m.CreatedAt), Expires: m.Lifecycle.expires(),
	}
	var up bool
	w.State, up, w.Message = m.state()
	w.Ready = w.State == provider.Running && up && w.Home != "" && why == ""
	if w.Message == "" {
		w.Message = why
	}
	w.Message = p.redact(w.Message)
	return w
}

// List reads all workspaces of the namespace, of which Oblien can filter none by slug or metadata. Pages move while
// workspaces go, so when some have gone meanwhile it reads them again for what slipped through.
func (p *Provider) List(ctx context.Context, owner string) iter.Seq2[provider.Workspace, error] {
	return func(yield func(provider.Workspace, error) bool) {
		seen := map[string]bool{}
		for range listPasses {
			first, last := 0, 0
			for page, read := 1, 0; ; page++ {
				machines, total, err := p.page(ctx, page)
				if err != nil {
					yield(provider.Workspace{}, err)
					return
				}
				if page == 1 {
					first = total
				}
				last = total
				read += len(machines)
				for _, w := range p.observeAll(ctx, owner, machines, seen) {
					if !yield(w, nil) {
						return
					}
				}
				if len(machines) == 0 || read >= total {
					break
				}
			}
			if last >= first {
				return
			}
		}
	}
}

func (p *Provider) page(ctx context.Context, n int) (machines []machine, total int, err error) {
	query := url.Values{"page": {strconv.Itoa(n)}, "limit": {strconv.Itoa(pageSize)}}
	if p.cfg.Namespace != "" {
		query.Set("namespace", p.cfg.Namespace)
	}
	var answer struct {
		Workspaces []machine `json:"workspaces"`
		Total      int       `json:"total"`
	}
	err = p.do(ctx, request{op: "list", method: http.MethodGet, path: "/workspace", query: query}, &answer)
	return answer.Workspaces, answer.Total, err
}

// observeAll observes those of owner that were not seen before.
func (p *Provider) observeAll(ctx context.Context, owner string, machines []machine, seen map[string]bool) []provider.Workspace {
	var mine []*machine
	for i := range machines {
		m := &machines[i]
		who, _, ours := parseSlug(m.Slug)
		if ours && who == owner && m.Namespace == p.cfg.Namespace && !seen[m.ID] {
			seen[m.ID] = true
			mine = append(mine, m)
		}
	}
	all := make([]provider.Workspace, len(mine))
	ctx, cancel := context.WithTimeout(ctx, quickTime/3) // a gateway that is away must not hold up what the control plane says
	defer cancel()
	var doors sync.WaitGroup
	room := make(chan struct{}, doorsAt)
	for i, m := range mine {
		room <- struct{}{}
		doors.Go(func() {
			defer func() { <-room }()
			all[i] = p.observe(ctx, m)
		})
	}
	doors.Wait()
	return all
}

// Delete asks for the end of a workspace, which Oblien may carry out later.
func (p *Provider) Delete(ctx context.Context, id string) error {
	if id == "" || strings.Trim(id, ".") == "" {
		return ctx.Err()
	}
	err := p.do(ctx, request{op: "delete", method: http.MethodDelete, path: at(id), effect: true, limit: powerTime}, nil)
	switch {
	case err == nil:
	case errors.Is(err, provider.ErrNotFound):
		err = nil
	case errors.Is(err, provider.ErrConflict):
		if m, getErr := p.fetch(ctx, "delete", id); getErr == nil {
			if state, _, _ := m.state(); state == provider.Deleting {
				err = nil
			}
		} else if errors.Is(getErr, provider.ErrNotFound) {
			err = nil
		}
	}
	if err == nil {
		p.forget(id)
	}
	return err
}

// forget drops what is remembered of a workspace that is gone.
func (p *Provider) forget(id string) {
	p.doorways.forget(id)
	p.verified.mu.Lock()
	defer p.verified.mu.Unlock()
	delete(p.verified.switches, id)
}

// Quota counts the workspaces of the account, running or not.
func (p *Provider) Quota(ctx context.Context) (provider.Quota, error) {
	var q quota
	if err := p.do(ctx, request{op: "quota", method: http.MethodGet, path: "/workspace/quota"}, &q); err != nil {
		return provider.Quota{}, err
	}
	inUse := q.Usage.Count
	if q.Current != nil || q.Current2 != nil {
		inUse = firstOf(q.Current, q.Current2)
	}
	return provider.Quota{Workspaces: max(0, firstOf(q.Max, q.Max2)), InUse: inUse}, nil
}
