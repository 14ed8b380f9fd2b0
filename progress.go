package freshet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"github.com/freshet-dev/freshet/internal/policy"
	"github.com/freshet-dev/freshet/provider"
)

// signs are what a silent agent is measured by.
type signs struct {
	at     time.Time     // when they were taken; zero: not in this silence
	cpu    time.Duration // negative: not measured
	folder [sha256.Size]byte
	rounds int  // idle time-outs on end that CPU time alone has prolonged
	blind  bool // the provider did not answer
}

// sign records progress: the agent has printed, said so, or begun or ended something.
func (r *liveRun) sign() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved = now
	r.signs = signs{}
}

// watchProgress looks at the run when half its idle time-out has passed without a sign, and when all of it has.
func (r *liveRun) watchProgress() {
	if r.agent.IdleTimeout < 0 {
		return
	}
	r.after(r.agent.IdleTimeout/2, r.judge)
}

// judge measures a silence, and ends the run if it means that the agent is stuck.
func (r *liveRun) judge(ctx context.Context) {
	now := time.Now()
	r.mu.Lock()
	s := policy.Silence{For: now.Sub(r.moved), Limit: r.agent.IdleTimeout, CPU: -1, Rounds: r.signs.rounds, Most: cpuRounds}
	before, moved := r.signs, r.moved
	over := r.stage != stageHandler || r.cause != nil
	r.mu.Unlock()
	if over {
		return
	}
	next := s.Limit/2 - s.For
	switch policy.Judge(s) {
	case policy.Measure:
		r.remember(moved, r.measure(ctx, before.rounds))
		next = s.Limit - s.For
	case policy.Stuck: // so it seems, as long as nothing was measured
		after := r.measure(ctx, before.rounds)
		if !before.at.IsZero() {
			s.Window = after.at.Sub(before.at)
			s.Changed = after.folder != before.folder
			if before.cpu >= 0 && after.cpu >= 0 {
				s.CPU = after.cpu - before.cpu
			}
		}
		verdict := policy.Judge(s)
		if after.blind { // a provider that is away says nothing about the agent
			verdict = policy.Progress
		}
		switch verdict {
		case policy.Stuck:
			r.core.log.Warn("no progress", "task", r.task.ID, "agent", r.task.Agent, "silent", s.For)
			r.stop(ErrIdle)
			return
		case policy.Busy:
			after.rounds++
			r.core.log.Info("silent but busy", "task", r.task.ID, "cpu", s.CPU, "window", s.Window, "round", after.rounds)
		default:
			if !after.blind {
				after.rounds = 0
			}
		}
		r.mu.Lock()
		if r.moved.Equal(moved) {
			r.moved, r.signs = now, after
		}
		r.mu.Unlock()
		next = s.Limit / 2
	}
	r.after(max(next, minJudge), r.judge)
}

// minJudge keeps a wrong clock from making judge spin.
const minJudge = time.Millisecond

func (r *liveRun) remember(moved time.Time, taken signs) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.moved.Equal(moved) {
		r.signs = taken
	}
}

// measure takes the signs of life that cost a call to the provider.
func (r *liveRun) measure(ctx context.Context, rounds int) signs {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	taken := signs{at: time.Now(), cpu: -1, rounds: rounds}
	ws := r.workspace()
	if meter, ok := provider.As[provider.Meter](r.provider); ok {
		u, err := meter.Usage(ctx, ws.ID)
		if err == nil {
			taken.cpu = u.CPUTime
		}
		taken.blind = away(err)
	}
	if filer, ok := provider.As[provider.Filer](r.provider); ok && r.hasDir() {
		tar, err := filer.Download(ctx, ws.ID, r.dir()+"/checkpoint")
		taken.blind = taken.blind || away(err)
		if err == nil {
			h := sha256.New()
			if _, err := io.Copy(h, tar); err == nil {
				copy(taken.folder[:], h.Sum(nil))
			}
			_ = tar.Close()
		}
	}
	return taken
}

// away says whether err is the provider's silence.
func away(err error) bool {
	return errors.Is(err, provider.ErrUnavailable) || errors.Is(err, provider.ErrRateLimited) || errors.Is(err, context.DeadlineExceeded)
}

// note is the agent's word on its progress, on its way into the status. Notes that come faster than they can be recorded
// replace each other.
func (r *liveRun) note(text string) {
	r.sign()
	text = string(bytes.ToValidUTF8([]byte(clip(text, maxNote)), nil))
	r.log.setNote(text)
}
