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

// signs are what a silent agent was last measured by.
type signs struct {
	at     time.Time
	cpu    time.Duration // negative: not measured
	folder folderSign
	busy   time.Time // when it was last seen to burn CPU
}

// folderSign is a look at the folder checkpoint/.
type folderSign struct {
	seen bool
	sum  [sha256.Size]byte
	size int64
}

// smallFolder is up to where the folder is read at each measure; a larger one only in the second half of a silence.
const smallFolder = 1 << 20

// sign records progress: the agent has printed, said so, or begun or ended something.
func (r *liveRun) sign() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved = now
}

// watchProgress begins to judge the run's silences.
func (r *liveRun) watchProgress() {
	if r.agent.IdleTimeout < 0 {
		return
	}
	r.mu.Lock()
	r.signs = signs{at: r.moved}
	r.mu.Unlock()
	r.after(r.agent.IdleTimeout/8, r.judge)
}

// judge measures a silence, and ends the run if it means that the agent is stuck.
func (r *liveRun) judge(ctx context.Context) {
	r.mu.Lock()
	s := policy.Silence{Now: time.Now(), Moved: r.moved, Busy: r.signs.busy, Limit: r.agent.IdleTimeout, Most: cpuRounds}
	before := r.signs
	over := r.stage != stageHandler || r.cause != nil
	r.mu.Unlock()
	if over {
		return
	}
	if silent := s.Now.Sub(s.Moved); silent >= s.Limit/8 {
		r.measure(ctx, before, silent >= s.Limit/2)
		r.mu.Lock()
		s.Moved, s.Busy = r.moved, r.signs.busy
		r.mu.Unlock()
	}
	stuck, next := policy.Judge(s)
	if stuck {
		r.core.log.Warn("no progress", "task", r.task.ID, "agent", r.task.Agent, "silent", s.Now.Sub(s.Moved), "last_busy", s.Busy)
		r.stop(ErrIdle)
		return
	}
	r.after(max(next, minJudge), r.judge)
}

// minJudge keeps a wrong clock from making judge spin.
const minJudge = time.Millisecond

// measure looks for the signs of life that cost a call to the provider, and compares them with those before. A provider
// that is away says nothing about the agent: then the silence begins anew.
func (r *liveRun) measure(ctx context.Context, before signs, thorough bool) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now := time.Now()
	taken := signs{at: now, cpu: -1, folder: before.folder, busy: before.busy}
	cpu, err := r.cpuTime(ctx)
	blind := away(err)
	if err == nil {
		taken.cpu = cpu
		if before.cpu >= 0 && policy.Working(cpu-before.cpu, now.Sub(before.at)) {
			taken.busy = now
		}
	}
	changed := false
	if thorough || before.folder.size <= smallFolder {
		look, err := r.lookAtFolder(ctx)
		blind = blind || away(err)
		if err == nil {
			changed = before.folder.seen && look != before.folder || !before.folder.seen && look.size > 0
			taken.folder = look
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signs = taken
	if (changed || blind) && now.After(r.moved) {
		r.moved = now
	}
}

// cpuTime is what the workspace's processes have used.
func (r *liveRun) cpuTime(ctx context.Context) (time.Duration, error) {
	meter, ok := provider.As[provider.Meter](r.provider)
	if !ok {
		return 0, provider.ErrUnsupported
	}
	u, err := meter.Usage(ctx, r.workspace().ID)
	return u.CPUTime, err
}

// lookAtFolder reads the folder checkpoint/ through. An empty one has no size.
func (r *liveRun) lookAtFolder(ctx context.Context) (folderSign, error) {
	filer, ok := provider.As[provider.Filer](r.provider)
	if !ok || !r.hasDir() {
		return folderSign{}, provider.ErrUnsupported
	}
	look := folderSign{seen: true}
	files, err := filer.Download(ctx, r.workspace().ID, r.dir()+"/checkpoint")
	if err != nil {
		return look, err
	}
	defer files.Close()
	head, some, err := peekFiles(files)
	if err != nil || !some {
		return look, err
	}
	h := sha256.New()
	look.size, err = io.Copy(h, io.MultiReader(head, files))
	copy(look.sum[:], h.Sum(nil))
	return look, err
}

// away says whether err is the provider's trouble, which says nothing about a workspace.
func away(err error) bool {
	return provider.Retryable(err) && !errors.Is(err, provider.ErrLost) && !errors.Is(err, provider.ErrConflict)
}

// note is the agent's word on its progress, on its way into the status. Notes that come faster than they can be recorded
// replace each other.
func (r *liveRun) note(text string) {
	r.sign()
	text = string(bytes.ToValidUTF8([]byte(clip(text, maxNote)), nil))
	r.log.setNote(text)
}
