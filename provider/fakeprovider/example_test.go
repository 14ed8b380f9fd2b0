package fakeprovider_test

import (
	"context"
	"fmt"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
)

func Example() {
	fake := fakeprovider.New(fakeprovider.Config{
		Main: func(ctx context.Context, p *fakeprovider.Process) int {
			fmt.Fprintf(p.Stdout, "%s got %q", p.Cmd.Args[0], p.Cmd.Stdin)
			return 3
		},
	})
	defer fake.Close()

	ctx := context.Background()
	w, err := fake.Create(ctx, provider.CreateRequest{Token: "t1", Owner: "example", Agent: "a"})
	if err != nil {
		panic(err)
	}
	p, err := fake.StartProcess(ctx, w.ID, "main", provider.Cmd{Args: []string{"agent"}, Stdin: []byte("work")})
	if err != nil {
		panic(err)
	}
	for chunk, err := range p.Output(ctx, provider.Offset{}) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\n", chunk.Data)
	}
	exit, err := p.Wait(ctx)
	fmt.Println(exit.Code, err)
	// Output:
	// agent got "work"
	// 3 <nil>
}
