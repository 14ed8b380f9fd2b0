// Command oblien runs the agents of 200 users who arrive at once in workspaces of Oblien.
//
//	go run ./examples/oblien
//
// It starts a test server of its own and uses that. With OBLIEN_CLIENT_ID and OBLIEN_CLIENT_SECRET set it uses the real
// service, whose workspaces cost money; OBLIEN_NAMESPACE and OBLIEN_IMAGE are taken then too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/oblienprovider"
	"github.com/freshet-dev/freshet/provider/oblienprovider/obliensim/sim"
)

func main() {
	users := flag.Int("users", 200, "how many arrive at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *users, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "oblien:", err)
		os.Exit(1)
	}
}

// agent is a program in the workspace's shell, as one in any language could be. It thinks for a moment about what is on
// its standard input.
const agent = `read -r user && sleep 0.2 && echo "hello $user, this is $(uname -s)"`

const owner = "oblien-example" // marks the workspaces; what an earlier run left is deleted

func run(ctx context.Context, users int, out io.Writer) (err error) {
	p, closer, err := open(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close(), closer()) }()

	quota, err := p.Quota(ctx)
	if err != nil {
		return fmt.Errorf("ask for the quota: %w", err)
	}
	limits := freshet.Limits{Workspaces: users}
	if quota.Workspaces > 0 { // who does not fit waits in line
		limits.Workspaces = max(1, min(users, quota.Workspaces-quota.InUse))
	}
	d, err := freshet.New(freshet.Config{
		Name: owner, Provider: p, Limits: limits,
		Agents: []freshet.Agent{{
			Name: "greeter", Image: os.Getenv("OBLIEN_IMAGE"), Resources: freshet.Resources{CPU: 1, MemoryMB: 512},
			Timeout: 5 * time.Minute, Handler: freshet.Command("sh", "-c", agent),
		}},
	})
	if err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	succeeded, err := serve(ctx, d, users, out)
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
	defer cancel()
	err = errors.Join(err, d.Shutdown(shutdown))

	left := 0
	for _, listErr := range p.List(shutdown, owner) {
		if listErr != nil {
			return errors.Join(err, listErr)
		}
		left++
	}
	fmt.Fprintf(out, "tasks=%d succeeded=%d workspaces_left=%d\n", users, succeeded, left)
	if err == nil && (succeeded != users || left != 0) {
		err = errors.New("not all went well")
	}
	return err
}

// open gives the provider, of the real service if there are credentials for it, and what is to be closed after it.
func open(out io.Writer) (*oblienprovider.Provider, func() error, error) {
	cfg := oblienprovider.Config{
		ClientID: os.Getenv("OBLIEN_CLIENT_ID"), ClientSecret: os.Getenv("OBLIEN_CLIENT_SECRET"), Namespace: os.Getenv("OBLIEN_NAMESPACE"),
	}
	if cfg.ClientID != "" && cfg.ClientSecret != "" {
		fmt.Fprintln(out, "using the real service")
		return oblienprovider.New(cfg), func() error { return nil }, nil
	}
	cfg = oblienprovider.Config{ClientID: "oblien_sim", ClientSecret: "sk_sim"}
	s, err := sim.New(sim.Config{Boot: 300 * time.Millisecond, ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret})
	if err != nil {
		return nil, nil, err
	}
	url, err := s.Listen("127.0.0.1:0")
	if err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	fmt.Fprintln(out, "using a test server at", url)
	cfg.ControlURL, cfg.RuntimeURL = url, url
	return oblienprovider.New(cfg), s.Close, nil
}

// serve submits the task of each user at the same time and waits for all results.
func serve(ctx context.Context, d *freshet.Dispatcher, users int, out io.Writer) (succeeded int, err error) {
	began := time.Now()
	tasks := make([]freshet.Task, users)
	for i := range tasks {
		tasks[i] = freshet.Task{Agent: "greeter", Tenant: fmt.Sprintf("user-%d", i), Payload: fmt.Appendf(nil, "user-%d\n", i)}
	}
	ids, err := d.SubmitMany(ctx, tasks)
	if err != nil {
		return 0, err
	}
	for i, id := range ids {
		result, err := d.Wait(ctx, id)
		if err != nil {
			fmt.Fprintf(out, "user-%d: %v\n", i, err)
			continue
		}
		succeeded++
		if i < 3 {
			fmt.Fprintf(out, "user-%d got: %s", i, result)
		}
	}
	fmt.Fprintf(out, "%d of %d in %s\n", succeeded, users, time.Since(began).Round(time.Millisecond))
	return succeeded, nil
}
