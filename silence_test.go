package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

const idleTime = 5 * time.Minute

// workFor shows a sign of life every half minute for as long as it is given.
func workFor(d time.Duration, sign func(p *fakeprovider.Process)) func(context.Context, *fakeprovider.Process) int {
	return func(_ context.Context, p *fakeprovider.Process) int {
		for range int(d / (30 * time.Second)) {
			if p.Sleep(30*time.Second) != nil {
				return 1
			}
			sign(p)
			p.Stdout.Write(nil) // tells the checker alone
		}
		return 0
	}
}

func TestProgressKeepsAgentAlive(t *testing.T) {
	for name, c := range map[string]struct {
		sign func(p *fakeprovider.Process)
		life time.Duration
	}{
		"stdout": {func(p *fakeprovider.Process) { fmt.Fprint(p.Stdout, ".") }, time.Hour},
		"stderr": {func(p *fakeprovider.Process) { fmt.Fprint(p.Stderr, ".") }, time.Hour},
		"checkpoint folder": {func(p *fakeprovider.Process) {
			p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/checkpoint/at", []byte(time.Now().String()))
		}, time.Hour},
		"CPU time": {func(p *fakeprovider.Process) { p.Burn(10 * time.Second) }, 3 * idleTime},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, oneAgent(freshet.Agent{IdleTimeout: idleTime}), oneProgram(workFor(c.life, c.sign)), func(w *world, d *member) {
				began := time.Now()
				id := d.submit(freshet.Task{})
				if _, err := d.wait(id); err != nil {
					w.Errorf("ended after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}

func TestHandlersProgressKeepsItAlive(t *testing.T) {
	play(t, oneAgent(freshet.Agent{Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		for i := range 20 {
			select {
			case <-time.After(4 * time.Minute):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			run.Progress(fmt.Sprintf("file %d of 20", i+1))
		}
		return nil, nil
	}}), fakeprovider.Config{}, func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		time.Sleep(4*time.Minute + 10*time.Second)
		if s := d.status(id); s.Note != "file 1 of 20" {
			w.Errorf("note %q", s.Note)
		}
		d.succeeds(id, "")
		if s := d.status(id); s.Note != "file 20 of 20" {
			w.Errorf("note %q", s.Note)
		}
	})
}

func TestSpinningAgentIsFound(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(workFor(10*time.Hour, func(p *fakeprovider.Process) { p.Burn(30 * time.Second) })), func(w *world, d *member) {
		began := time.Now()
		d.fails(d.submit(freshet.Task{}), freshet.ErrIdle)
		if took := time.Since(began); took < 3*idleTime || took > 5*idleTime {
			w.Errorf("ended after %v; CPU time counts for three time-outs of %v", took, idleTime)
		}
	})
}

func TestTickingRuntimeIsNotWork(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(workFor(10*time.Hour, func(p *fakeprovider.Process) { p.Burn(time.Millisecond) })), func(w *world, d *member) {
		began := time.Now()
		d.fails(d.submit(freshet.Task{}), freshet.ErrIdle)
		if took := time.Since(began); took > idleTime+time.Minute {
			w.Errorf("ended after %v", took)
		}
	})
}

func TestIdleTimeoutCanBeOff(t *testing.T) {
	play(t, oneAgent(freshet.Agent{IdleTimeout: -1}), oneProgram(sleeper(5*time.Hour)), func(w *world, d *member) {
		d.succeeds(d.submit(freshet.Task{Payload: []byte("at last")}), "at last")
	})
}

// TestIdleEndKeepsWork: what an agent has made is kept before it is ended by force, and its user is told.
func TestIdleEndKeepsWork(t *testing.T) {
	a := freshet.Agent{Retry: freshet.Retry{If: func(err error) bool { return errors.Is(err, freshet.ErrIdle) }}}
	play(t, oneAgent(a), oneProgram(func(ctx context.Context, p *fakeprovider.Process) int {
		if b, err := p.ReadFile(p.Cmd.Env["FRESHET_DIR"] + "/checkpoint/n"); err == nil {
			fmt.Fprintf(p.Stdout, "going on from %s", b)
			return 0
		}
		p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/checkpoint/n", []byte("7"))
		return hang(ctx, p)
	}), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		d.succeeds(id, "going on from 7")
		told := ""
		for s, err := range d.Watch(w.Context(), id, 0) {
			if err == nil && s.State == freshet.StateQueued {
				told = s.Reason
			}
		}
		if !strings.Contains(told, "no progress") {
			w.Errorf("the user was told %q", told)
		}
	})
}

// TestOutageIsNotSilence: while the control plane is away nobody can see whether an agent works. (It is shorter than the
// provider's own time-out, which would end the workspace.)
func TestOutageIsNotSilence(t *testing.T) {
	play(t, oneAgent(freshet.Agent{IdleTimeout: idleTime}), oneProgram(workFor(time.Hour, func(p *fakeprovider.Process) { fmt.Fprint(p.Stdout, ".") })), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		time.Sleep(10*time.Minute + 30*time.Second)
		d.cloud.SetDown(provider.ErrUnavailable)
		time.Sleep(9 * time.Minute)
		d.cloud.SetDown(nil)
		d.succeeds(id, strings.Repeat(".", 120))
	})
}

// TestWorkInTheFirstHalfOfATimeoutCounts: the agent has worked for all but the last two and a half minutes.
func TestWorkInTheFirstHalfOfATimeoutCounts(t *testing.T) {
	play(t, oneAgent(freshet.Agent{IdleTimeout: idleTime}), oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		for range 28 {
			p.Burn(5 * time.Second)
			if p.Sleep(5*time.Second) != nil {
				return 1
			}
		}
		if p.Sleep(4*time.Minute) != nil { // a slow answer from far away
			return 1
		}
		fmt.Fprint(p.Stdout, "done")
		return 0
	}), func(w *world, d *member) {
		d.succeeds(d.submit(freshet.Task{}), "done")
	})
}

// TestKeepAliveIsRepeatedSoonAfterAnOutage: the provider ends what nobody has asked for in 15 minutes.
func TestKeepAliveIsRepeatedSoonAfterAnOutage(t *testing.T) {
	play(t, oneAgent(freshet.Agent{IdleTimeout: -1}), oneProgram(sleeper(time.Hour)), func(w *world, d *member) {
		id := d.submit(freshet.Task{Payload: []byte("alive")})
		time.Sleep(9*time.Minute + 55*time.Second)
		d.cloud.SetDown(provider.ErrUnavailable)
		time.Sleep(9*time.Minute + 30*time.Second)
		d.cloud.SetDown(nil)
		d.succeeds(id, "alive")
	})
}
