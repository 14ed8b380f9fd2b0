package freshet_test

import (
	"context"
	"fmt"
	"log"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/localprovider"
)

// One agent, one tenant, no queue or database: wc runs in a folder of its own on this machine.
func ExampleNew() {
	ctx := context.Background()
	d, err := freshet.New(freshet.Config{
		Provider: localprovider.New(localprovider.Config{}),
		Agents:   []freshet.Agent{{Name: "count", Handler: freshet.Command("wc", "-w")}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := d.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer d.Shutdown(ctx)

	id, err := d.Submit(ctx, freshet.Task{Agent: "count", Tenant: "ann", Payload: []byte("to be or not to be")})
	if err != nil {
		log.Fatal(err)
	}
	out, err := d.Wait(ctx, id)
	fmt.Printf("%s %v\n", out, err)
	// Output:
	// 6
	//  <nil>
}
