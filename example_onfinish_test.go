package freshet_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// OnFinish hears of every task that ends, however it ends. An error of it, such as a mail server that is away, has it
// called again later.
func ExampleConfig_onFinish() {
	ctx := context.Background()
	mails := make(chan string)
	d, err := freshet.New(freshet.Config{
		Provider: fakeprovider.New(fakeprovider.Config{
			Main: func(context.Context, *fakeprovider.Process) int { return 3 },
		}),
		Agents: []freshet.Agent{{Name: "analyse", Handler: freshet.Command("analyse")}},
		OnFinish: func(ctx context.Context, s freshet.Status) error {
			select {
			case mails <- fmt.Sprintf("to %s: %s %s (%s)", s.Task.Tenant, s.Task.Agent, s.State, s.Reason):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := d.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer d.Shutdown(ctx)

	id, err := d.Submit(ctx, freshet.Task{Agent: "analyse", Tenant: "ann"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-mails)

	_, err = d.Wait(ctx, id)
	var exit *freshet.ExitError
	if errors.As(err, &exit) {
		fmt.Println("exit status", exit.Code)
	}
	// Output:
	// to ann: analyse failed (process exited with 3)
	// exit status 3
}
