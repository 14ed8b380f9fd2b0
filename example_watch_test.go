package freshet_test

import (
	"context"
	"fmt"
	"log"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

// All changes of a task, then those behind a version that was seen before, as a browser asks that comes back.
func ExampleDispatcher_Watch() {
	ctx := context.Background()
	d, err := freshet.New(freshet.Config{
		Provider: fakeprovider.New(fakeprovider.Config{}),
		Agents:   []freshet.Agent{{Name: "analyse", Handler: freshet.Command("analyse")}},
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
	var seen int64
	for s, err := range d.Watch(ctx, id, 0) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(s.State)
		if s.State == freshet.StateRunning {
			seen = s.Version
		}
	}
	for s, err := range d.Watch(ctx, id, seen) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("again:", s.State)
	}
	// Output:
	// queued
	// starting
	// running
	// succeeded
	// again: succeeded
}
