package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// why is what a host tells its user of a task that has ended: the code under test.
func why(ctx context.Context, d *freshet.Dispatcher, id string) string {
	_, err := d.Wait(ctx, id)
	var exit *freshet.ExitError
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, freshet.ErrIdle):
		return "it stopped making progress"
	case errors.Is(err, freshet.ErrTimeout):
		return "it ran out of time"
	case errors.As(err, &exit):
		return fmt.Sprintf("it exited with %d: %s", exit.Code, exit.Tail)
	}
	return err.Error()
}

// A unit test of a host. In a bubble of testing/synctest the five minutes pass at once.
func TestStuckAgentIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakeprovider.New(fakeprovider.Config{
			Main: func(ctx context.Context, p *fakeprovider.Process) int {
				fmt.Fprintln(p.Stdout, "thinking")
				<-ctx.Done() // stuck
				return 1
			},
		})
		d, err := freshet.New(freshet.Config{Provider: fake, Agents: []freshet.Agent{{
			Name: "a", Handler: freshet.Command("agent"), IdleTimeout: 5 * time.Minute,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		id, err := d.Submit(t.Context(), freshet.Task{Agent: "a", Tenant: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		if got := why(t.Context(), d, id); got != "it stopped making progress" {
			t.Errorf("why: %q", got)
		}
		if err := d.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(fake.Workspaces()); n != 0 {
			t.Errorf("%d workspaces left", n)
		}
	})
}

// The behaviour of an agent is a Go function, its process and its workspace are in memory.
func Example_unitTest() {
	ctx := context.Background()
	fake := fakeprovider.New(fakeprovider.Config{
		Main: func(_ context.Context, p *fakeprovider.Process) int {
			if string(p.Cmd.Stdin) == "bad" {
				fmt.Fprintln(p.Stderr, "cannot clone")
				return 128
			}
			return 0
		},
	})
	d, err := freshet.New(freshet.Config{Provider: fake, Agents: []freshet.Agent{{Name: "a", Handler: freshet.Command("agent")}}})
	if err != nil {
		panic(err)
	}
	if err := d.Start(ctx); err != nil {
		panic(err)
	}
	for _, payload := range []string{"good", "bad"} {
		id, err := d.Submit(ctx, freshet.Task{Agent: "a", Tenant: "ann", Payload: []byte(payload)})
		if err != nil {
			panic(err)
		}
		fmt.Println(why(ctx, d, id))
	}
	if err := d.Shutdown(ctx); err != nil {
		panic(err)
	}
	fmt.Println(len(fake.Workspaces()), "workspaces left")
	// Output:
	// done
	// it exited with 128: cannot clone
	//
	// 0 workspaces left
}
