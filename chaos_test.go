package freshet_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

var chaosSeed = flag.Uint64("seed", 0, "the one seed of TestChaos to play; 0: all")

// TestChaos plays fleets in which everything goes wrong that can: calls of the provider and the store fail before and after
// their effect, workspaces vanish, dispatchers are cut off, shut down and replaced, tasks are cancelled, limits changed.
// When the storm is over every task must come to its end, and all promises must have been kept throughout.
func TestChaos(t *testing.T) {
	seeds := uint64(40)
	switch {
	case os.Getenv("FRESHET_SOAK") != "":
		seeds = 3000
	case testing.Short():
		seeds = 5
	}
	first := uint64(1)
	if *chaosSeed != 0 {
		first, seeds = *chaosSeed, 1
	}
	for seed := first; seed < first+seeds; seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newStorm(t, seed).play() })
		})
		if !ok {
			t.Errorf("replay with: go test -run 'TestChaos$' -seed=%d .", seed)
		}
	}
}

// storm is one seed.
type storm struct {
	*world
	random *rand.Rand
	seed   uint64
	faults float64 // share of calls of the provider that go wrong
	hiccup float64 // share of calls of the store that go wrong
	spares int     // that pools may still be given: there is room for so many whatever the limits
	ids    []string
	want   map[string]string // result of each task, should it succeed
}

// one of some.
func one[T any](r *rand.Rand, some ...T) T { return some[r.IntN(len(some))] }

func (s *storm) seconds(most int) time.Duration {
	return time.Duration(s.random.Int64N(int64(most) * int64(time.Second)))
}

func newStorm(t *testing.T, seed uint64) *storm {
	r := rand.New(rand.NewPCG(seed, 42))
	s := &storm{random: r, seed: seed, spares: 3, want: map[string]string{}}
	s.faults, s.hiccup = one(r, 0, 0.02, 0.1, 0.3), one(r, 0, 0, 0.02, 0.1)
	cfg := freshet.Config{
		Name: fleetName,
		Limits: freshet.Limits{
			Workspaces: one(r, 0, 4, 12), CPU: one(r, 0, 0, 9.5), Tenant: freshet.TenantLimits{Concurrent: one(r, 0, 1, 3)},
		},
	}
	for i := range 1 + r.IntN(3) {
		cfg.Agents = append(cfg.Agents, s.agent(i))
	}
	cloud := fakeprovider.Config{
		Main: weather, Boot: fakeprovider.LogNormal(time.Second, 30*time.Second, seed), Delete: fakeprovider.Uniform(0, 5*time.Second, seed),
		Pause: fakeprovider.Fixed(2 * time.Second), Resume: fakeprovider.Fixed(time.Second), Capacity: one(r, 0, 0, 10),
		CreatesPerSecond: one(r, 0.0, 0, 2),
	}
	mode, attach, counts := one(r, provider.Idempotent, provider.Search), r.IntN(4) > 0, r.IntN(2) == 0
	cloud.Capabilities = func(c *provider.Capabilities) { c.Create, c.Attach, c.PausedCounts = mode, attach, counts }
	s.world = newWorld(t, cfg, cloud, r.IntN(2) == 0)
	s.durable = r.IntN(3) > 0
	return s
}

func (s *storm) agent(i int) freshet.Agent {
	r := s.random
	a := freshet.Agent{
		Name: fmt.Sprint("agent-", i), Resources: freshet.Resources{CPU: one(r, 0.5, 1, 2)}, IdleTimeout: 5 * time.Minute,
		Timeout: one(r, 0, 0, 10*time.Minute), Grace: one(r, 0, time.Second), Checkpoint: one(r, 0, 10*time.Second),
		Concurrent: one(r, 0, 0, 2), Retry: freshet.Retry{Attempts: one(r, 0, 10)}, Idempotent: r.IntN(2) == 0,
		KeepFor: one(r, 0, 0, time.Minute), Pool: freshet.Pool{Warm: min(one(r, 0, 0, 2), s.spares)},
	}
	s.spares -= a.Pool.Warm
	a.Pool.Paused = min(one(r, 0, 0, 0, 1), s.spares)
	s.spares -= a.Pool.Paused
	if r.IntN(4) == 0 {
		a.Setup = []freshet.Cmd{{Args: []string{"main"}, Stdin: []byte("0 quiet")}}
	}
	a.Handler = freshet.Command("main")
	if r.IntN(3) == 0 {
		a.Handler = stepwise
	}
	return a
}

// weather is the agent's program: it works for as many seconds as its input says, prints, and leaves a result.
func weather(ctx context.Context, p *fakeprovider.Process) int {
	var seconds int
	var kind string
	fmt.Sscan(string(p.Cmd.Stdin), &seconds, &kind)
	if kind == "slow" { // to die
		p.Term()
	}
	for i := 0; i < seconds; i += 10 {
		fmt.Fprintf(p.Stdout, "%d s\n", i)
		p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/checkpoint/at", fmt.Append(nil, i))
		if p.Sleep(time.Duration(min(10, seconds-i))*time.Second) != nil {
			return 1
		}
	}
	switch {
	case kind == "fail":
		return 3
	case kind == "again" && p.Cmd.Env["FRESHET_ATTEMPT"] == "1":
		return 75
	}
	if p.Cmd.Env["FRESHET_DIR"] != "" && p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/result", p.Cmd.Stdin) != nil {
		return 1
	}
	return 0
}

// stepwise is a handler in Go that does the same in steps.
func stepwise(ctx context.Context, run *freshet.Run) ([]byte, error) {
	n, err := freshet.Step(ctx, run, "plan", func(context.Context) (int, error) { return 3, nil })
	if err != nil {
		return nil, err
	}
	for i := range n {
		if _, err := run.Exec(ctx, fmt.Sprint("part ", i), freshet.Cmd{Args: []string{"main"}, Stdin: run.Task.Payload}); err != nil {
			return nil, err
		}
		run.Progress(fmt.Sprintf("%d of %d", i+1, n))
		if err := run.Checkpoint(ctx, fmt.Append(nil, i)); err != nil {
			return nil, fmt.Errorf("%w: %w", freshet.ErrRetry, err)
		}
	}
	return run.Task.Payload, nil
}

func (s *storm) play() {
	defer s.abort()
	for range 1 + s.random.IntN(3) {
		s.launch()
		if !s.durable {
			break // what forgets with its process is one process's
		}
	}
	for range 15 + s.random.IntN(30) {
		s.act()
		time.Sleep(s.seconds(12))
	}
	s.calm()
	s.settle()
}

// launch adds a dispatcher to the fleet.
func (s *storm) launch() {
	m := s.member()
	s.disturb(m)
	for m.Start(s.Context()) != nil {
		time.Sleep(time.Second)
	}
}

// disturb makes a share of a dispatcher's calls go wrong.
func (s *storm) disturb(m *member) {
	n := s.random.Uint64()
	m.cloud.SetFault(fakeprovider.Chaos(n, s.faults))
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(n, 1))
	m.link.set(func(ctx context.Context, _ string, after bool) error {
		mu.Lock()
		fails, slow := random.Float64() < s.hiccup/2, time.Duration(random.Int64N(int64(2*time.Second)))
		mu.Unlock()
		if !fails {
			return nil
		}
		time.Sleep(slow)
		return errCut
	})
}

// act is what users and operators do, and what happens to machines.
func (s *storm) act() {
	r := s.random
	m := one(r, s.up()...)
	ctx := s.Context()
	switch n := r.IntN(20); {
	case n < 10:
		for range 1 + r.IntN(3) {
			s.send(m)
		}
	case n < 13 && len(s.ids) > 0:
		_ = m.Cancel(ctx, one(r, s.ids...))
	case n == 13:
		_ = m.SetLimits(ctx, one(r, nil, &freshet.Limits{Workspaces: 2}, &freshet.Limits{Workspaces: 20, Tenant: freshet.TenantLimits{Concurrent: 2}}))
	case n == 14:
		_ = m.SetTenantLimits(ctx, "ann", one(r, nil, &freshet.TenantLimits{Concurrent: 1, Weight: 3}))
	case n == 15:
		_ = m.Hold(ctx, one(r, freshet.Filter{}, freshet.Filter{Tenant: "bob"}, freshet.Filter{Agent: "agent-0"}), one(r, "", "on hold"))
	case n == 16:
		for _, w := range s.cloud.Workspaces() {
			if r.IntN(4) == 0 {
				one(r, s.cloud.Vanish, s.cloud.Fail)(w.ID)
			}
		}
	case n == 17:
		m.cloud.SetDown(provider.ErrUnavailable)
		time.Sleep(s.seconds(90))
		m.cloud.SetDown(nil)
	case n == 18 && s.durable:
		m.cut()
		time.Sleep(s.seconds(70))
		m.mend()
		s.disturb(m)
	case n == 19 && s.durable:
		m.over = true
		call, cancel := context.WithTimeout(ctx, time.Minute)
		_ = m.Shutdown(call)
		cancel()
		s.launch()
	}
}

// up are the dispatchers that are at work.
func (s *storm) up() (up []*member) {
	for _, m := range s.members {
		if !m.over {
			up = append(up, m)
		}
	}
	return up
}

// send submits a task.
func (s *storm) send(m *member) {
	r := s.random
	payload := fmt.Sprint(r.IntN(60), " ", one(r, "work", "work", "work", "again", "fail", "slow"))
	task := freshet.Task{
		Agent: fmt.Sprint("agent-", r.IntN(len(s.cfg.Agents))), Tenant: one(r, "ann", "bob", "cat"), Payload: []byte(payload), Priority: r.IntN(3),
		Key: fmt.Sprint("key-", len(s.ids)),
	}
	if r.IntN(8) == 0 {
		task.NotBefore = time.Now().Add(s.seconds(60))
	}
	if r.IntN(8) == 0 {
		task.NotAfter = time.Now().Add(2*time.Minute + s.seconds(60))
	}
	for range 50 { // until it is known to be recorded
		id, err := m.Submit(s.Context(), task)
		if err == nil {
			s.ids = append(s.ids, id)
			s.want[id] = payload
			return
		}
		if !errors.Is(err, errCut) {
			s.Errorf("Submit: %v", err)
			return
		}
		time.Sleep(time.Second)
	}
	s.Error("Submit fails for ever")
}

// calm ends all disturbance.
func (s *storm) calm() {
	for _, m := range s.members {
		m.mend()
	}
	m := s.up()[0]
	ctx := s.Context()
	err := errors.Join(m.SetLimits(ctx, nil), m.SetTenantLimits(ctx, "ann", nil))
	for _, f := range []freshet.Filter{{}, {Tenant: "bob"}, {Agent: "agent-0"}} {
		err = errors.Join(err, m.Hold(ctx, f, ""))
	}
	if err != nil {
		s.Error(err)
	}
}

// settle waits for all tasks to end and checks everything.
func (s *storm) settle() {
	m := s.up()[0]
	for _, id := range s.ids {
		out, err := m.wait(id)
		if err == nil && string(out) != s.want[id] {
			s.Errorf("task %s: result %q, want %q", id, out, s.want[id])
		}
	}
	time.Sleep(10 * time.Minute) // kept workspaces go, pools are filled
	s.verify(m)
	for _, m := range s.up() {
		m.stop()
	}
	if left := s.cloud.Workspaces(); len(left) > 0 && !s.durable {
		s.Errorf("workspaces left: %+v", left)
	}
	if s.Failed() {
		s.Logf("storm: faults %g, hiccups %g, durable %v, line %v, agents %+v, limits %+v", s.faults, s.hiccup, s.durable, s.line, s.cfg.Agents, s.cfg.Limits)
	}
}
