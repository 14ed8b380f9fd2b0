package oblienprovider

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// tokenLife is how long a token of the gateway is used; it lasts an hour.
const tokenLife = 55 * time.Minute

// doorway is the way into the runtime of one workspace.
type doorway struct {
	token   string
	fetched time.Time
	home    string        // "": not known yet
	open    bool          // the runtime has answered since the machine last came up
	used    time.Duration // the most CPU time that was seen
}

type doorways struct {
	mu   sync.Mutex // protects byID and what it points to
	byID map[string]*doorway
}

func (d *doorways) get(id string) doorway {
	d.mu.Lock()
	defer d.mu.Unlock()
	if way := d.byID[id]; way != nil {
		return *way
	}
	return doorway{}
}

func (d *doorways) set(id string, change func(*doorway)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	way := d.byID[id]
	if way == nil {
		way = &doorway{}
		d.byID[id] = way
	}
	change(way)
}

func (d *doorways) home(id string) string { return d.get(id).home }

// shut makes the next one to enter ask for a token.
func (d *doorways) shut(id string) {
	d.set(id, func(way *doorway) { way.token, way.open = "", false })
}

func (d *doorways) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.byID, id)
}

// key returns the token of the gateway. not: one that was refused.
func (p *Provider) key(ctx context.Context, op, id, not string) (string, error) {
	way := p.doorways.get(id)
	if way.token != "" && way.token != not && time.Since(way.fetched) < tokenLife {
		return way.token, nil
	}
	var answer struct {
		Token string `json:"token"`
	}
	// It changes nothing that matters: the runtime is enabled once, and each time there is a new token.
	err := p.do(ctx, request{op: op, method: http.MethodPost, path: at(id, "runtime-api-access", "enable")}, &answer)
	if err != nil {
		return "", err
	}
	if answer.Token == "" {
		return "", fail(op, provider.ErrUnavailable, "the control plane gave no token for the runtime")
	}
	p.doorways.set(id, func(way *doorway) { way.token, way.fetched = answer.Token, time.Now() })
	return answer.Token, nil
}

// arrive makes sure that the runtime has answered since the machine came up, and that the home folder is known.
func (p *Provider) arrive(ctx context.Context, id string) error {
	if way := p.doorways.get(id); way.open && way.home != "" {
		return nil
	}
	var answer struct {
		Home string `json:"home"`
	}
	r := request{op: "runtime", method: http.MethodGet, path: "/runtime", limit: quickTime / 3}
	ask := func(token string) error { return p.exchange(ctx, p.runtime, r, &answer, bearer(token), token) }
	err := p.knock(ctx, id, r, ask)
	if err != nil && ctx.Err() == nil && !errors.Is(err, provider.ErrNotFound) && !errors.Is(err, provider.ErrConflict) {
		// The gateway cannot reach a machine whose network is closed to it, which enabling the runtime does not open.
		open := request{op: "runtime", method: http.MethodPatch, path: at(id, "network"), effect: true,
			body: map[string]any{"public_access": true, "ingress_ports": []int{runtimePort}}}
		if p.do(ctx, open, nil) == nil {
			err = p.knock(ctx, id, r, ask)
		}
	}
	if err != nil {
		return err
	}
	if !strings.HasPrefix(answer.Home, "/") {
		return fail("runtime", provider.ErrUnavailable, "the runtime names no home folder")
	}
	p.doorways.set(id, func(way *doorway) { way.home, way.open = answer.Home, true })
	return nil
}

const runtimePort = 9990 // of the runtime in a machine

func bearer(token string) func(http.Header) {
	return func(h http.Header) { h.Set("Authorization", "Bearer "+token) }
}

// knock does something at the gateway, and once again with a new token when the first was refused.
func (p *Provider) knock(ctx context.Context, id string, r request, do func(token string) error) error {
	token, err := p.key(ctx, r.op, id, "")
	if err != nil {
		return err
	}
	err = do(token)
	if !errors.Is(err, provider.ErrUnauthorized) || ctx.Err() != nil {
		return err
	}
	if token, err = p.key(ctx, r.op, id, token); err != nil {
		return err
	}
	return do(token)
}

// enter sends a request to the runtime and returns an answer that is no failure. The caller closes its body. parent is the
// caller's context, ctx the one with this call's time-out.
func (p *Provider) enter(ctx, parent context.Context, id string, r request) (resp *http.Response, err error) {
	err = p.knock(ctx, id, r, func(token string) error {
		got, err := p.send(ctx, parent, p.runtime, r, bearer(token))
		if err != nil {
			return err
		}
		stream := !strings.Contains(got.Header.Get("Content-Type"), "json")
		if got.StatusCode/100 == 2 && stream {
			resp = got
			return nil
		}
		defer got.Body.Close()
		body, err := io.ReadAll(io.LimitReader(got.Body, maxAnswer))
		if err != nil {
			return lost(parent, r, true, err)
		}
		if err := p.refused(r.op, r.effect, got, body, token); err != nil {
			return err
		}
		got.Body = io.NopCloser(bytes.NewReader(body))
		resp = got
		return nil
	})
	return resp, err
}

// explain looks at a workspace whose runtime did not do as asked: what the runtime says does not tell why.
func (p *Provider) explain(ctx context.Context, op, id string, err error) error {
	if ctx.Err() != nil || errors.Is(err, provider.ErrAmbiguous) || errors.Is(err, provider.ErrInvalid) {
		return err
	}
	m, getErr := p.fetch(ctx, op, id)
	if errors.Is(getErr, provider.ErrNotFound) {
		p.forget(id)
		return getErr
	}
	if getErr != nil {
		return err
	}
	switch state, _, why := m.state(); state {
	case provider.Running:
		if errors.Is(err, provider.ErrNotFound) || errors.Is(err, provider.ErrConflict) {
			return reclass(err, provider.ErrUnavailable)
		}
		return err
	case provider.Failed, provider.Deleting:
		return fail(op, provider.ErrLost, "workspace is %s %s", state, why)
	default:
		return fail(op, provider.ErrConflict, "workspace is %s", state)
	}
}

// Check asks the runtime for its health.
func (p *Provider) Check(ctx context.Context, id string) error {
	var answer struct {
		Status string `json:"status"`
	}
	r := request{op: "check", method: http.MethodGet, path: "/health", limit: quickTime / 3}
	err := p.knock(ctx, id, r, func(token string) error {
		return p.exchange(ctx, p.runtime, r, &answer, bearer(token), token)
	})
	if err != nil {
		return p.explain(ctx, "check", id, err)
	}
	if answer.Status != "ok" {
		return fail("check", provider.ErrLost, "its runtime is not well")
	}
	return nil
}

// event is one of a stream of POST /exec/stream.
type event struct {
	name     string
	TaskID   any    `json:"task_id"`
	Data     string `json:"data"` // in base64
	ExitCode *int   `json:"exit_code"`
	Error    string `json:"error"`
}

// command is a command to run in a workspace.
type command struct {
	op     string
	argv   []string
	effect bool
	limit  time.Duration
	sink   func(stream provider.Stream, data []byte) (more bool)
}

// exec runs a command in a workspace to its end, or until sink has enough: errEnough.
func (p *Provider) exec(parent context.Context, id string, c command) (code int, err error) {
	ctx, cancel := context.WithTimeout(parent, c.limit)
	defer cancel()
	r := request{op: c.op, method: http.MethodPost, path: "/exec/stream", effect: c.effect, body: map[string]any{
		"cmd": c.argv, "exec_mode": "direct", "ttl_seconds": 1, "timeout_seconds": int(c.limit.Seconds()) + 1,
	}}
	resp, err := p.enter(ctx, parent, id, r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	task := ""
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxAnswer)
	var e event
	for lines.Scan() {
		name, data, _ := strings.Cut(lines.Text(), ":")
		data = strings.TrimPrefix(data, " ")
		if name == "event" {
			e = event{name: data}
		}
		if name != "data" || json.Unmarshal([]byte(data), &e) != nil {
			continue
		}
		switch e.name {
		case "task_id":
			task = fmt.Sprint(e.TaskID)
		case "stdout", "stderr":
			b, err := base64.StdEncoding.DecodeString(e.Data)
			if err != nil {
				return 0, fail(c.op, provider.ErrUnavailable, "the runtime's answer is garbled")
			}
			stream := provider.Stdout
			if e.name == "stderr" {
				stream = provider.Stderr
			}
			if c.sink != nil && len(b) > 0 && !c.sink(stream, b) {
				p.abandon(parent, id, task)
				return 0, errEnough
			}
		case "exit":
			if e.ExitCode == nil {
				return 0, fail(c.op, provider.ErrUnavailable, "the command did not run: %s", p.redact(e.Error))
			}
			return *e.ExitCode, nil
		}
		e = event{}
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return 0, lost(parent, r, true, err)
}

var errEnough = errors.New("oblienprovider: enough was read")

// abandon ends a task whose output nobody reads any more. Its script would end by itself after a while.
func (p *Provider) abandon(ctx context.Context, id, task string) {
	token := p.doorways.get(id).token
	if task == "" || token == "" {
		return
	}
	ctx = context.WithoutCancel(ctx)
	r := request{op: "exec", method: http.MethodDelete, path: "/exec/" + url.PathEscape(task), limit: 5 * time.Second}
	_ = p.exchange(ctx, p.runtime, r, nil, bearer(token), token)
}

// script runs one of the scripts of this package and returns what it wrote to standard output. Its first argument is the
// folder of all processes.
func (p *Provider) script(ctx context.Context, id, op, text string, args ...string) (out []byte, code int, err error) {
	return p.scriptFor(ctx, id, command{op: op, limit: createTime}, text, args...)
}

func (p *Provider) scriptFor(ctx context.Context, id string, c command, text string, args ...string) (out []byte, code int, err error) {
	if err := p.arrive(ctx, id); err != nil {
		return nil, 0, err
	}
	if c.sink == nil {
		c.sink = func(stream provider.Stream, data []byte) bool {
			if stream == provider.Stdout {
				out = append(out, data...)
			}
			return true
		}
	}
	c.argv = append([]string{"sh", "-c", libScript + text, "sh", p.doorways.home(id) + "/" + rootFolder}, args...)
	code, err = p.exec(ctx, id, c)
	return out, code, err
}

const rootFolder = ".freshet" // in the home folder of a workspace

// The scripts that run in a workspace.
var (
	//go:embed scripts/lib.sh
	libScript string
	//go:embed scripts/supervise.sh
	superviseScript string
	//go:embed scripts/launch.sh
	launchScript string
	//go:embed scripts/read.sh
	readScript string
	//go:embed scripts/wait.sh
	waitScript string
	//go:embed scripts/signal.sh
	signalScript string
	//go:embed scripts/find.sh
	findScript string
	//go:embed scripts/survey.sh
	surveyScript string
	//go:embed scripts/usage.sh
	usageScript string
	//go:embed scripts/merge.sh
	mergeScript string
	//go:embed scripts/drop.sh
	dropScript string
	//go:embed scripts/locate.sh
	locateScript string
)
