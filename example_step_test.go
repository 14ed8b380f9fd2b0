package freshet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// A handler that can be interrupted anywhere: its plan is made once, and it goes on behind the last file that it had done.
// Here the first attempt asks for another one half-way.
func ExampleStep() {
	ctx := context.Background()
	review := func(ctx context.Context, run *freshet.Run) ([]byte, error) {
		files, err := freshet.Step(ctx, run, "plan", func(context.Context) ([]string, error) {
			fmt.Println("plan")
			return []string{"a.go", "b.go", "c.go"}, nil
		})
		if err != nil {
			return nil, err
		}
		done := 0
		if state, ok := run.Resumed(); ok && state != nil {
			if err := json.Unmarshal(state, &done); err != nil {
				return nil, err
			}
		}
		for _, file := range files[done:] {
			if _, err := run.Exec(ctx, "review "+file, freshet.Cmd{Args: []string{"review", file}}); err != nil {
				return nil, err
			}
			fmt.Printf("attempt %d: %s\n", run.Attempt, file)
			done++
			state, err := json.Marshal(done)
			if err != nil {
				return nil, err
			}
			if err := run.Checkpoint(ctx, state); err != nil {
				return nil, err
			}
			if run.Attempt == 1 && done == 2 {
				return nil, fmt.Errorf("%w: the model is overloaded", freshet.ErrRetry)
			}
		}
		return fmt.Appendf(nil, "%d files", done), nil
	}
	d, err := freshet.New(freshet.Config{
		Provider: fakeprovider.New(fakeprovider.Config{}),
		Agents: []freshet.Agent{{
			Name: "review", Handler: review, Retry: freshet.Retry{MinDelay: time.Millisecond},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := d.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer d.Shutdown(ctx)

	id, err := d.Submit(ctx, freshet.Task{Agent: "review", Tenant: "ann"})
	if err != nil {
		log.Fatal(err)
	}
	result, err := d.Wait(ctx, id)
	fmt.Printf("%s %v\n", result, err)
	// Output:
	// plan
	// attempt 1: a.go
	// attempt 1: b.go
	// attempt 2: c.go
	// 3 files <nil>
}
