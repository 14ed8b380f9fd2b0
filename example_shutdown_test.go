package freshet_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// An agent may finish within a part of the time that Shutdown is given. Then nothing is left.
func ExampleDispatcher_Shutdown() {
	ctx := context.Background()
	began := make(chan struct{})
	fake := fakeprovider.New(fakeprovider.Config{})
	d, err := freshet.New(freshet.Config{
		Provider: fake,
		Agents: []freshet.Agent{{Name: "analyse", Handler: func(ctx context.Context, run *freshet.Run) ([]byte, error) {
			close(began)
			<-run.Stopping() // a deploy: come to an end
			fmt.Println("stopping")
			return []byte("what there was time for"), nil
		}}},
		OnFinish: func(_ context.Context, s freshet.Status) error {
			fmt.Println(s.State)
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := d.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := d.Submit(ctx, freshet.Task{Agent: "analyse", Tenant: "ann"}); err != nil {
		log.Fatal(err)
	}
	<-began

	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	fmt.Println(d.Shutdown(ctx))
	fmt.Println(len(fake.Workspaces()), "workspaces left")

	_, err = d.Submit(ctx, freshet.Task{Agent: "analyse", Tenant: "ann"})
	fmt.Println(err)
	// Output:
	// stopping
	// succeeded
	// <nil>
	// 0 workspaces left
	// freshet: dispatcher is closed
}
