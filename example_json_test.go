package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

type question struct{ Repo string }

type answer struct{ Findings int }

// A handler with types: the payload is decoded before it is called, and what it returns is encoded.
func ExampleJSON() {
	ctx := context.Background()
	analyse := func(ctx context.Context, run *freshet.Run, q question) (answer, error) {
		out, err := run.Exec(ctx, "scan", freshet.Cmd{Args: []string{"scan", q.Repo}})
		return answer{Findings: len(out)}, err
	}
	d, err := freshet.New(freshet.Config{
		Provider: fakeprovider.New(fakeprovider.Config{
			Main: func(_ context.Context, p *fakeprovider.Process) int {
				fmt.Fprint(p.Stdout, "!!!")
				return 0
			},
		}),
		Agents: []freshet.Agent{{Name: "analyse", Handler: freshet.JSON(analyse)}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := d.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer d.Shutdown(ctx)

	for _, payload := range []string{`{"Repo": "git.example.com/shop"}`, `{"Repo": 7}`} {
		id, err := d.Submit(ctx, freshet.Task{Agent: "analyse", Tenant: "ann", Payload: []byte(payload)})
		if err != nil {
			log.Fatal(err)
		}
		result, err := d.Wait(ctx, id)
		fmt.Printf("%q invalid=%t\n", result, errors.Is(err, freshet.ErrInvalid))
	}
	// Output:
	// "{\"Findings\":3}" invalid=false
	// "" invalid=true
}
