package freshet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/internal/promise"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
	"github.com/freshet-dev/freshet/queue"
	"github.com/freshet-dev/freshet/store"
)

// world is all that a fleet lives in, in virtual time: a cloud, a store, and the checker of the promises between them.
type world struct {
	*testing.T
	cfg     freshet.Config
	durable bool // the store says that it outlives its dispatchers
	line    bool // the store keeps the line; otherwise a Queue does
	cloud   *fakeprovider.Provider
	mem     *store.Memory
	queue   queue.Queue
	check   *promise.Checker // nil: nobody checks
	log     *transcript
	members []*member

	unfinished bool // the test leaves tasks that have not finished
}

// member is one dispatcher, with connections of its own to the store and the cloud.
type member struct {
	*freshet.Dispatcher
	w     *world
	cloud *fakeprovider.Provider
	link  *link
	over  bool // shut down, or lost to the fleet

	mended func() // ends a cut
}

const fleetName = "fleet"

// stage sets a world up twice, once with the line in the store and once in a Queue, and has the test play in both. When the
// test returns, the fleet is brought to rest and the promises are checked.
func stage(t *testing.T, cfg freshet.Config, cloud fakeprovider.Config, test func(w *world)) {
	t.Helper()
	for _, line := range []bool{true, false} {
		t.Run(map[bool]string{true: "store", false: "queue"}[line], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, cfg, cloud, line)
				defer w.abort()
				test(w)
				w.rest()
			})
		})
	}
}

// play is stage with one dispatcher that has started.
func play(t *testing.T, cfg freshet.Config, cloud fakeprovider.Config, test func(w *world, d *member)) {
	t.Helper()
	stage(t, cfg, cloud, func(w *world) { test(w, w.start()) })
}

func newWorld(t *testing.T, cfg freshet.Config, cloud fakeprovider.Config, line bool) *world {
	w := &world{T: t, line: line, mem: store.NewMemory(), queue: queue.NewMemory(), log: &transcript{}}
	rules := promise.Config{Limits: cfg.Limits, Agents: map[string]promise.Agent{}}
	cfg.Agents = slices.Clone(cfg.Agents)
	for i := range cfg.Agents {
		a := &cfg.Agents[i]
		a.Handler = w.entered(a.Handler)
		rules.Agents[a.Name] = promise.Agent{Concurrent: a.Concurrent, IdleTimeout: max(a.IdleTimeout, 0)}
	}
	w.check = promise.New(rules)
	w.cfg = cfg
	if w.cfg.Name == "" {
		w.cfg.Name = fleetName
	}
	if main := cloud.Main; main != nil {
		cloud.Main = func(ctx context.Context, p *fakeprovider.Process) int {
			if id := p.Cmd.Env["FRESHET_TASK_ID"]; id != "" && w.check != nil && strings.HasSuffix(p.Name, "main") {
				defer w.check.Enter(ctx, runOf(p.Cmd.Env["FRESHET_RUN_ID"], "", p.Cmd.Env["FRESHET_TENANT"], true))()
				p.Stdout, p.Stderr = signing{p.Stdout, w.check, id}, signing{p.Stderr, w.check, id}
			}
			return main(ctx, p)
		}
	}
	w.cloud = fakeprovider.New(cloud)
	return w
}

// signing tells the checker what an agent prints.
type signing struct {
	io.Writer
	check *promise.Checker
	task  string
}

func (s signing) Write(p []byte) (int, error) {
	s.check.Sign(s.task)
	return s.Writer.Write(p)
}

// entered tells the checker when a handler runs.
func (w *world) entered(h freshet.Handler) freshet.Handler {
	if h == nil {
		return nil
	}
	return func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		if w.check == nil {
			return h(ctx, run)
		}
		defer w.check.Enter(ctx, runOf(run.ID, run.Task.Agent, run.Task.Tenant, false))()
		return h(ctx, run)
	}
}

// runOf reads a run's id, which is its task and its fence.
func runOf(id, agent, tenant string, program bool) promise.Run {
	cut := strings.LastIndexByte(id, '-')
	fence, err := strconv.ParseInt(id[cut+1:], 10, 64)
	if err != nil {
		panic(err)
	}
	return promise.Run{Task: id[:cut], Fence: fence, Agent: agent, Tenant: tenant, Program: program}
}

// member makes a dispatcher that was not started.
func (w *world) member() *member {
	w.Helper()
	cfg := w.cfg
	m := &member{w: w, cloud: w.cloud, link: &link{}}
	if len(w.members) > 0 {
		m.cloud = w.cloud.Sibling()
	}
	if cfg.Provider == nil {
		cfg.Provider = m.cloud
	}
	return w.join(m, cfg)
}

// client makes a dispatcher without a provider and without agents.
func (w *world) client() *member {
	w.Helper()
	cfg := w.cfg
	cfg.Provider, cfg.Agents = nil, nil
	return w.join(&member{w: w, cloud: w.cloud.Sibling(), link: &link{}}, cfg)
}

// join connects a dispatcher to the store.
func (w *world) join(m *member, cfg freshet.Config) *member {
	w.Helper()
	var s store.Store = w.mem
	if w.durable {
		s = durable{w.mem}
	}
	if !w.line {
		s = struct{ store.Store }{s}
	}
	if w.check != nil {
		s = w.check.Wrap(s)
	}
	cfg.Store = promise.Through(m.link.gate, s)
	if !w.line {
		cfg.Queue = w.queue
		cfg.Blobs = w.mem
	}
	cfg.Logger = slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d, err := freshet.New(cfg)
	if err != nil {
		w.Fatal(err)
	}
	m.Dispatcher = d
	w.members = append(w.members, m)
	return m
}

// start makes a dispatcher and starts it.
func (w *world) start() *member {
	w.Helper()
	m := w.member()
	if err := m.Start(w.Context()); err != nil {
		w.Fatal(err)
	}
	return m
}

// durable is a store in memory that says it is more than that.
type durable struct{ *store.Memory }

func (s durable) Open(ctx context.Context) (store.Info, error) {
	info, err := s.Memory.Open(ctx)
	info.Durable = true
	return info, err
}

// link is a dispatcher's connection to its store.
type link struct {
	mu    sync.Mutex // protects fault
	fault promise.Gate
}

func (l *link) set(g promise.Gate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = g
}

func (l *link) gate(ctx context.Context, op string, after bool) error {
	l.mu.Lock()
	fault := l.fault
	l.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(ctx, op, after)
}

var errCut = errors.New("connection refused")

// cut takes a dispatcher's store and cloud away, without its knowing: its machine is off the network. Nobody refuses its
// calls, they hang.
func (m *member) cut() {
	mended := make(chan struct{})
	m.mended = sync.OnceFunc(func() { close(mended) })
	m.link.set(func(ctx context.Context, _ string, after bool) error {
		if after {
			return nil // what had its effect before the cut
		}
		select {
		case <-ctx.Done():
		case <-mended:
		}
		return errCut
	})
	m.cloud.SetFault(func(fakeprovider.Call) fakeprovider.Fault { return fakeprovider.Fault{Before: errCut} })
	m.cloud.SetDown(errCut)
}

// mend gives them back.
func (m *member) mend() {
	if m.mended != nil {
		m.mended()
	}
	m.link.set(nil)
	m.cloud.SetFault(nil)
	m.cloud.SetDown(nil)
}

// stop shuts a dispatcher down, which must leave nothing to report.
func (m *member) stop() {
	m.w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	m.over = true
	if err := m.Shutdown(ctx); err != nil {
		m.w.Errorf("Shutdown: %v", err)
	}
}

// rest lets the fleet come to rest, checks all promises, shuts down and looks for what is left.
func (w *world) rest() {
	w.Helper()
	var up *member
	for _, m := range w.members {
		if !m.over {
			up = m
		}
	}
	if up != nil && w.check != nil {
		w.verify(up)
	}
	for _, m := range w.members {
		if !m.over {
			m.stop()
		}
	}
	if left := w.cloud.Workspaces(); len(left) > 0 && !w.durable {
		w.Errorf("workspaces left: %+v", left)
	}
}

// abort ends what a test that has failed leaves behind: nothing may be left in the bubble.
func (w *world) abort() {
	if w.Failed() {
		w.Logf("log:\n%s", w.log)
	}
	w.cloud.Close()
	for _, m := range w.members {
		m.mend()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		_ = m.Shutdown(ctx)
		cancel()
	}
}

// verify checks the promises.
func (w *world) verify(up *member) {
	w.Helper()
	final := promise.Final{
		Store: w.mem, Provider: w.cloud.Sibling(), Owner: w.cfg.Name, Drained: !w.unfinished, Ask: up.ask, Causes: causes,
		Grace: 3 * time.Minute * time.Duration(len(w.members)), // each of them sweeps once
		Idle:  10 * time.Minute, Calls: w.calls,
	}
	if !w.unfinished {
		final.Goroutines = 15 + 12*len(w.members)
	}
	for _, a := range w.cfg.Agents {
		final.Spares += a.Pool.Warm + a.Pool.Paused
	}
	if broken := w.check.Check(w.Context(), final); len(broken) > 0 {
		w.Errorf("broken promises:\n%s", promise.String(broken))
	}
}

// calls counts what the fleet has asked of the cloud.
func (w *world) calls() (n int) {
	for _, m := range w.members {
		if m.over {
			continue
		}
		for _, calls := range m.cloud.Calls() {
			n += calls
		}
	}
	return n
}

// ask asks about a task as a host would.
func (m *member) ask(ctx context.Context, id string) (a promise.Answer, err error) {
	s, err := m.Status(ctx, id)
	if err != nil {
		return a, err
	}
	a = promise.Answer{State: s.State, Reason: s.Reason}
	if s.State.Finished() {
		_, a.Result = m.Wait(ctx, id)
		var failed *freshet.TaskError
		if a.Result != nil && !errors.As(a.Result, &failed) {
			return a, fmt.Errorf("Wait answers no TaskError but %w", a.Result)
		}
	}
	return a, nil
}

// causes are the errors that stand behind the codes.
var causes = map[string]error{
	"canceled": freshet.ErrCanceled, "timeout": freshet.ErrTimeout, "idle": freshet.ErrIdle, "expired": freshet.ErrExpired,
	"workspace_lost": freshet.ErrWorkspaceLost, "crashed": freshet.ErrCrashed, "interrupted": freshet.ErrShutdown,
	"invalid": freshet.ErrInvalid,
}

// submit submits a task, which must be taken. Agent and tenant have defaults.
func (m *member) submit(t freshet.Task) string {
	m.w.Helper()
	if t.Agent == "" {
		t.Agent = m.w.cfg.Agents[0].Name
	}
	if t.Tenant == "" {
		t.Tenant = "ann"
	}
	id, err := m.Submit(m.w.Context(), t)
	if err != nil {
		m.w.Fatalf("Submit: %v", err)
	}
	return id
}

// succeeds waits for a task, which must succeed, and checks its result.
func (m *member) succeeds(id, want string) {
	m.w.Helper()
	out, err := m.wait(id)
	if err != nil || string(out) != want {
		m.w.Errorf("Wait: %q, %v; want %q", out, err, want)
	}
}

// fails waits for a task, which must fail for this cause, and returns the error.
func (m *member) fails(id string, cause error) error {
	m.w.Helper()
	out, err := m.wait(id)
	var failed *freshet.TaskError
	if !errors.As(err, &failed) || cause != nil && !errors.Is(err, cause) {
		m.w.Errorf("Wait: %q, %v; want a TaskError of %v", out, err, cause)
	}
	return err
}

// wait waits for the end of a task, but not for ever.
func (m *member) wait(id string) ([]byte, error) {
	m.w.Helper()
	ctx, cancel := context.WithTimeout(m.w.Context(), 6*time.Hour)
	defer cancel()
	out, err := m.Wait(ctx, id)
	if errors.Is(err, context.DeadlineExceeded) {
		s, _ := m.Status(m.w.Context(), id)
		m.w.Fatalf("task does not end: %+v\nlog:\n%s", s, m.w.log)
	}
	return out, err
}

// status of a task that must be there.
func (m *member) status(id string) freshet.Status {
	m.w.Helper()
	s, err := m.Status(m.w.Context(), id)
	if err != nil {
		m.w.Fatalf("Status: %v", err)
	}
	return s
}

// until waits for a task to be in a state.
func (m *member) until(id string, want freshet.State) freshet.Status {
	m.w.Helper()
	for range 100_000 {
		s := m.status(id)
		if s.State == want {
			return s
		}
		if s.State.Finished() {
			m.w.Fatalf("waiting for %s: task is %s (%s)", want, s.State, s.Reason)
		}
		time.Sleep(50 * time.Millisecond)
	}
	m.w.Fatalf("task never becomes %s: %+v\nlog:\n%s", want, m.status(id), m.w.log)
	return freshet.Status{}
}

// record is what the store has of a task.
func (w *world) record(id string) store.Task {
	w.Helper()
	tasks, err := w.mem.QueryTasks(w.Context(), store.TaskQuery{IDs: []string{id}})
	if err != nil || len(tasks) != 1 {
		w.Fatalf("record of %s: %d, %v", id, len(tasks), err)
	}
	return tasks[0]
}

// transcript is a log that is kept.
type transcript struct {
	mu sync.Mutex // protects b
	b  bytes.Buffer
}

func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// programs is a Main that does what the first argument says.
type programs map[string]func(ctx context.Context, p *fakeprovider.Process) int

func (all programs) main(ctx context.Context, p *fakeprovider.Process) int {
	do := all[p.Cmd.Args[0]]
	if do == nil {
		fmt.Fprintf(p.Stderr, "%s: command not found\n", p.Cmd.Args[0])
		return 127
	}
	return do(ctx, p)
}

// cat prints its standard input.
func cat(_ context.Context, p *fakeprovider.Process) int {
	p.Stdout.Write(p.Cmd.Stdin)
	return 0
}

// sleeper works for a while without a word, and prints its input in the end.
func sleeper(d time.Duration) func(ctx context.Context, p *fakeprovider.Process) int {
	return func(ctx context.Context, p *fakeprovider.Process) int {
		if p.Sleep(d) != nil {
			return 1
		}
		return cat(ctx, p)
	}
}

// hang waits to be killed.
func hang(ctx context.Context, _ *fakeprovider.Process) int {
	<-ctx.Done()
	return 1
}

// oneAgent is a fleet of one agent.
func oneAgent(a freshet.Agent) freshet.Config {
	if a.Name == "" {
		a.Name = "agent"
	}
	if a.Handler == nil {
		a.Handler = freshet.Command("main")
	}
	return freshet.Config{Agents: []freshet.Agent{a}}
}

// oneProgram is a cloud in which main is all that there is to run.
func oneProgram(main func(ctx context.Context, p *fakeprovider.Process) int) fakeprovider.Config {
	return fakeprovider.Config{Main: main}
}

// logOf reads a task's log.
func (m *member) logOf(id string) string {
	m.w.Helper()
	var b bytes.Buffer
	if _, err := m.Logs(m.w.Context(), id, 0, &b); err != nil {
		m.w.Fatalf("Logs: %v", err)
	}
	return b.String()
}

// tarOf reads all of a tar and closes it.
func readAll(w *world, r io.ReadCloser) []byte {
	w.Helper()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		w.Fatal(err)
	}
	return b
}
