package freshet_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
	"github.com/freshet-dev/freshet/store"
)

func TestProgramFindsItsFolderAndEnvironment(t *testing.T) {
	cfg := oneAgent(freshet.Agent{Env: map[string]string{"LANG": "C", "FRESHET_TENANT": "forged"}})
	play(t, cfg, oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		env := p.Cmd.Env
		payload, err := p.ReadFile(env["FRESHET_DIR"] + "/payload")
		fmt.Fprintf(p.Stdout, "%s %v|%s|%s|%s|%s", payload, err, p.Cmd.Stdin, env["FRESHET_TENANT"], env["FRESHET_ATTEMPT"], env["LANG"])
		fmt.Fprintf(p.Stderr, "%s %s", env["FRESHET_TASK_ID"], env["FRESHET_RUN_ID"])
		return 0
	}), func(w *world, d *member) {
		id := d.submit(freshet.Task{Payload: []byte("work")})
		d.succeeds(id, "work <nil>|work|ann|1|C")
		if log := d.logOf(id); !strings.Contains(log, id+" "+id+"-") {
			w.Errorf("log %q", log)
		}
	})
}

func TestResultFileGoesBeforeStandardOutput(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		fmt.Fprint(p.Stdout, "thinking aloud")
		switch string(p.Cmd.Stdin) {
		case "file":
			p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/result", []byte("from the file"))
		case "empty":
			p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/result", nil)
		case "large":
			p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/result", make([]byte, 1<<20+1))
		}
		return 0
	}), func(w *world, d *member) {
		d.succeeds(d.submit(freshet.Task{Payload: []byte("file")}), "from the file")
		d.succeeds(d.submit(freshet.Task{Payload: []byte("empty")}), "")
		d.succeeds(d.submit(freshet.Task{}), "thinking aloud")
		d.fails(d.submit(freshet.Task{Payload: []byte("large")}), freshet.ErrInvalid)
	})
}

func TestLastMegabyteOfOutputIsTheResult(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 3<<16) + "the end" // 3 MiB
	play(t, oneAgent(freshet.Agent{}), oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		for chunk := range slices.Chunk([]byte(long), 10_001) {
			p.Stdout.Write(chunk)
		}
		return 0
	}), func(w *world, d *member) {
		out, err := d.wait(d.submit(freshet.Task{}))
		if err != nil || string(out) != long[len(long)-1<<20:] {
			w.Errorf("%d bytes, %v", len(out), err)
		}
	})
}

func TestArtifactsAreKept(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		if string(p.Cmd.Stdin) == "none" {
			return 0
		}
		p.WriteFile(p.Cmd.Env["FRESHET_DIR"]+"/artifacts/report/a.txt", []byte("alpha"))
		return 1 // also of a failure
	}), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		d.fails(id, nil)
		r, err := d.Artifacts(w.Context(), id)
		if err != nil {
			w.Fatal(err)
		}
		files := map[string]string{}
		for tr := tar.NewReader(bytes.NewReader(readAll(w, r))); ; {
			h, err := tr.Next()
			if err != nil {
				break
			}
			if h.Typeflag == tar.TypeReg {
				b, _ := io.ReadAll(tr)
				files[h.Name] = string(b)
			}
		}
		if len(files) != 1 || files["artifacts/report/a.txt"] != "alpha" {
			w.Errorf("artifacts %q", files)
		}
		none := d.submit(freshet.Task{Payload: []byte("none")})
		d.succeeds(none, "")
		for _, id := range []string{none, "nobody"} {
			if _, err := d.Artifacts(w.Context(), id); !errors.Is(err, freshet.ErrNotFound) {
				w.Errorf("artifacts of %s: %v", id, err)
			}
		}
	})
}

// lines prints numbered lines, one a second.
func lines(n int) func(context.Context, *fakeprovider.Process) int {
	return func(_ context.Context, p *fakeprovider.Process) int {
		for i := range n {
			fmt.Fprintf(p.Stdout, "line %04d\n", i)
			if p.Sleep(time.Second) != nil {
				return 1
			}
		}
		return 0
	}
}

func TestLogsWhileRunningAndAfter(t *testing.T) {
	const n = 100
	play(t, oneAgent(freshet.Agent{}), oneProgram(lines(n)), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		time.Sleep(50*time.Second + 700*time.Millisecond)
		var early bytes.Buffer
		at, err := d.Logs(w.Context(), id, 0, &early)
		if err != nil || at != int64(early.Len()) || at < 490 || at > 510 {
			w.Errorf("after 50 s: %d bytes, next %d, %v", early.Len(), at, err)
		}
		var rest, all bytes.Buffer
		end, err := d.FollowLogs(w.Context(), id, at, &rest)
		if err != nil || end != n*10 {
			w.Errorf("FollowLogs: %d, %v", end, err)
		}
		if s := d.status(id); !s.State.Finished() || s.LogSize != n*10 {
			w.Errorf("after FollowLogs: %+v", s)
		}
		if _, err := d.Logs(w.Context(), id, 0, &all); err != nil || all.String() != early.String()+rest.String() {
			w.Errorf("the whole is not its parts: %v", err)
		}
		var tail bytes.Buffer
		if next, err := d.Logs(w.Context(), id, 995, &tail); err != nil || next != 1000 || tail.String() != "0099\n" {
			w.Errorf("from 995: %q, next %d, %v", tail.String(), next, err)
		}
		for _, beyond := range []int64{1000, 5000} {
			var b bytes.Buffer
			if next, err := d.Logs(w.Context(), id, beyond, &b); err != nil || b.Len() != 0 || next != beyond {
				w.Errorf("from %d: %d bytes, next %d, %v", beyond, b.Len(), next, err)
			}
		}
		if _, err := d.Logs(w.Context(), "nobody", 0, io.Discard); !errors.Is(err, freshet.ErrNotFound) {
			w.Errorf("log of nobody: %v", err)
		}
	})
}

// TestLogIsARing: beyond 10 MiB the oldest bytes go, and an offset among them begins at the oldest that is kept.
func TestLogIsARing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var all bytes.Buffer
	play(t, oneAgent(freshet.Agent{}), oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		all.Reset()
		for all.Len() < 12<<20 {
			chunk := make([]byte, random.IntN(100_000))
			for i := range chunk {
				chunk[i] = 'a' + byte(random.IntN(26))
			}
			all.Write(chunk)
			p.Stdout.Write(chunk)
			if random.IntN(3) == 0 {
				p.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
			}
		}
		return 0
	}), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		if _, err := d.wait(id); err != nil {
			w.Fatal(err)
		}
		var kept bytes.Buffer
		end, err := d.Logs(w.Context(), id, 0, &kept)
		if err != nil || end != int64(all.Len()) {
			w.Errorf("ends at %d of %d, %v", end, all.Len(), err)
		}
		if kept.Len() < 10<<20 || kept.Len() > 11<<20 || !bytes.HasSuffix(all.Bytes(), kept.Bytes()) {
			w.Errorf("kept %d bytes, which are the end of the log: %v", kept.Len(), bytes.HasSuffix(all.Bytes(), kept.Bytes()))
		}
	})
}

// TestLogSurvivesStoreFaults: every byte is there once, whatever of the writes fails, before or after its effect.
func TestLogSurvivesStoreFaults(t *testing.T) {
	const n = 300
	play(t, oneAgent(freshet.Agent{}), oneProgram(lines(n)), func(w *world, d *member) {
		var mu sync.Mutex
		random := rand.New(rand.NewPCG(3, 4))
		d.link.set(func(_ context.Context, op string, _ bool) error {
			mu.Lock()
			defer mu.Unlock()
			if (op == "Save" || op == "Put" || op == "Finish") && random.IntN(3) == 0 {
				return errCut
			}
			return nil
		})
		id := d.submit(freshet.Task{})
		if _, err := d.wait(id); err != nil {
			w.Error(err)
		}
		d.link.set(nil)
		var want strings.Builder
		for i := range n {
			fmt.Fprintf(&want, "line %04d\n", i)
		}
		if log := d.logOf(id); log != want.String() {
			w.Errorf("log of %d bytes, want %d, ends with %q", len(log), want.Len(), log[max(0, len(log)-50):])
		}
	})
}

// TestChattyAgentWhileStoreIsAway must not spin: the bubble's clock would stand still.
func TestChattyAgentWhileStoreIsAway(t *testing.T) {
	play(t, oneAgent(freshet.Agent{}), oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		for range 20 {
			p.Stdout.Write(bytes.Repeat([]byte("x"), 64<<10))
			p.Sleep(time.Second)
		}
		return 0
	}), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		time.Sleep(2 * time.Second)
		saves := 0
		d.link.set(func(_ context.Context, op string, _ bool) error {
			if op == "Save" {
				if saves++; saves > 1000 {
					time.Sleep(time.Second) // or the clock would never move on
				}
				return errCut
			}
			return nil
		})
		time.Sleep(15 * time.Second)
		d.link.set(nil)
		if _, err := d.wait(id); err != nil {
			w.Error(err)
		}
		if saves > 1000 {
			w.Errorf("more than %d writes in 15 s", 1000)
		}
	})
}

func TestSecretsReachTheProcessAndNothingElse(t *testing.T) {
	const secret = "hunter2-hunter2"
	cfg := oneAgent(freshet.Agent{
		Env: map[string]string{"MODE": "fast"},
		Secrets: func(_ context.Context, t freshet.Task) (map[string]string, error) {
			return map[string]string{"API_KEY": secret + t.Tenant}, nil
		},
	})
	play(t, cfg, oneProgram(func(_ context.Context, p *fakeprovider.Process) int {
		if p.Cmd.Env["API_KEY"] != secret+"ann" || p.Cmd.Env["MODE"] != "fast" {
			return 1
		}
		if string(p.Cmd.Stdin) == "fail" {
			return 7
		}
		if string(p.Cmd.Stdin) == "again" && p.Cmd.Env["FRESHET_ATTEMPT"] == "1" {
			return 75
		}
		return 0
	}), func(w *world, d *member) {
		var said strings.Builder
		for _, payload := range []string{"", "fail", "again"} {
			id := d.submit(freshet.Task{Payload: []byte(payload)})
			_, err := d.wait(id)
			fmt.Fprintf(&said, "%v %+v\n", err, d.status(id))
			if payload == "" && err != nil {
				w.Errorf("the process has not got its secret: %v", err)
			}
			entries, _ := w.mem.Entries(w.Context(), id, "")
			events, _ := w.mem.Events(w.Context(), id, 0, 100)
			fmt.Fprintf(&said, "%+v %+v %+v\n", w.record(id), entries, events)
			for _, e := range entries {
				fmt.Fprintf(&said, "%s\n", e.Data)
			}
			said.WriteString(d.logOf(id))
		}
		rows, _ := w.mem.QueryWorkspaces(w.Context(), store.WorkspaceQuery{})
		fmt.Fprintf(&said, "%+v %+v %s", rows, w.cloud.Workspaces(), w.log)
		if strings.Contains(said.String(), secret) {
			w.Errorf("the secret is in what is said and kept:\n%s", said.String())
		}
	})
}

func TestSecretsThatCannotBeHadFailTheTask(t *testing.T) {
	calls := 0
	cfg := oneAgent(freshet.Agent{Secrets: func(context.Context, freshet.Task) (map[string]string, error) {
		if calls++; calls == 1 {
			return nil, fmt.Errorf("vault is sealed: %w", freshet.ErrRetry)
		}
		return nil, errors.New("no such secret")
	}})
	play(t, cfg, oneProgram(cat), func(w *world, d *member) {
		calls = 0
		id := d.submit(freshet.Task{})
		if err := d.fails(id, nil); !strings.Contains(err.Error(), "no such secret") || calls != 2 {
			w.Errorf("%v after %d calls", err, calls)
		}
	})
}

func TestWatchIsCompleteAndGoesOn(t *testing.T) {
	cloud := oneProgram(attempts(75))
	cloud.Boot = fakeprovider.Fixed(time.Second)
	play(t, oneAgent(freshet.Agent{}), cloud, func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		var live []freshet.Status
		for s, err := range d.Watch(w.Context(), id, 0) {
			if err != nil {
				w.Fatal(err)
			}
			live = append(live, s)
		}
		var states []string
		for i, s := range live {
			states = append(states, string(s.State))
			if s.Version != int64(i+1) || s.ID != id {
				w.Errorf("change %d: %+v", i, s)
			}
		}
		if got := strings.Join(states, " "); got != "queued starting running queued starting running succeeded" {
			w.Errorf("states: %s", got)
		}
		for after := range len(live) {
			i := after
			for s, err := range d.Watch(w.Context(), id, int64(after)) {
				if err != nil || s.Version != live[i].Version || s.State != live[i].State || s.Reason != live[i].Reason || s.Attempt != live[i].Attempt {
					w.Errorf("after %d: %+v, %v; want %+v", after, s, err, live[i])
				}
				i++
			}
			if i != len(live) {
				w.Errorf("after %d: ended at %d of %d", after, i, len(live))
			}
		}
		for s, err := range d.Watch(w.Context(), id, int64(len(live))) {
			w.Errorf("after the end: %+v, %v", s, err)
		}
		n := 0
		for _, err := range d.Watch(w.Context(), "nobody", 0) {
			if n++; !errors.Is(err, freshet.ErrNotFound) {
				w.Errorf("nobody: %v", err)
			}
		}
		if n != 1 {
			w.Errorf("%d errors", n)
		}
		for range d.Watch(w.Context(), id, 0) {
			break // and nothing is left behind
		}
	})
}

func TestWatchAndWaitEndWithTheirContext(t *testing.T) {
	play(t, oneAgent(freshet.Agent{IdleTimeout: -1}), oneProgram(sleeper(time.Hour)), func(w *world, d *member) {
		id := d.submit(freshet.Task{})
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		if _, err := d.Wait(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
			w.Errorf("Wait: %v", err)
		}
		var last error
		for _, err := range d.Watch(ctx, id, 0) {
			last = err
		}
		if !errors.Is(last, context.DeadlineExceeded) {
			w.Errorf("Watch: %v", last)
		}
		if _, err := d.FollowLogs(ctx, id, 0, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
			w.Errorf("FollowLogs: %v", err)
		}
		d.succeeds(id, "")
	})
}

func TestListPages(t *testing.T) {
	cfg := oneAgent(freshet.Agent{})
	cfg.Agents = append(cfg.Agents, freshet.Agent{Name: "other", Handler: freshet.Command("main")})
	play(t, cfg, oneProgram(cat), func(w *world, d *member) {
		const n = 250
		var ids []string
		for i := range n {
			task := freshet.Task{Tenant: []string{"ann", "bob"}[i%2], Payload: []byte("x")}
			if i%10 == 0 {
				task.Agent = "other"
			}
			ids = append(ids, d.submit(task))
			time.Sleep(time.Millisecond)
		}
		for _, id := range ids {
			d.succeeds(id, "x")
		}
		slices.Reverse(ids)
		for _, c := range []struct {
			f    freshet.Filter
			want int
		}{
			{freshet.Filter{}, n}, {freshet.Filter{Tenant: "ann"}, n / 2}, {freshet.Filter{Agent: "other"}, n / 10},
			{freshet.Filter{Tenant: "bob", Agent: "other"}, 0}, {freshet.Filter{States: []freshet.State{freshet.StateSucceeded}}, n},
			{freshet.Filter{States: []freshet.State{freshet.StateQueued, freshet.StateFailed}}, 0}, {freshet.Filter{Tenant: "eve"}, 0},
		} {
			var got []string
			for s, err := range d.List(w.Context(), c.f) {
				if err != nil {
					w.Fatal(err)
				}
				if s.Task.Payload != nil {
					w.Error("a list with payloads")
				}
				got = append(got, s.ID)
			}
			if len(got) != c.want || !slices.IsSortedFunc(got, func(a, b string) int { return strings.Compare(b, a) }) {
				w.Errorf("%+v: %d, want %d, newest first", c.f, len(got), c.want)
			}
			if c.want == n && !slices.Equal(got, ids) {
				w.Errorf("%+v: not the order of submission", c.f)
			}
		}
	})
}
