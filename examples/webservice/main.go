// Webservice is an HTTP service in which a request starts an agent. Try it:
//
//	go run ./examples/webservice &
//	curl -i localhost:8080/tasks -H 'X-User: ann' -H 'Idempotency-Key: 1' -d '{"agent": "count", "input": "to be or not to be"}'
//	curl -N localhost:8080/tasks/ID/events -H 'X-User: ann'
//	curl -N localhost:8080/tasks/ID/log -H 'X-User: ann'
//	curl localhost:8080/tasks/ID -H 'X-User: ann'
//	curl -X DELETE localhost:8080/tasks/ID -H 'X-User: ann'
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet"
	"github.com/freshet-dev/freshet/provider/localprovider"
)

// The agent is any program; this one is a script. It reads the payload, prints what it does, and leaves its result in a
// file.
const script = `
set -f
words=$(wc -w <"$FRESHET_DIR/payload")
for word in $(cat "$FRESHET_DIR/payload"); do
	echo "counting $word"
	sleep 1
done
echo "$((words)) words" >"$FRESHET_DIR/result"
`

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	flag.Parse()
	if err := run(*addr); err != nil {
		slog.Error("webservice", "err", err)
		os.Exit(1)
	}
}

func run(addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	d, err := freshet.New(freshet.Config{
		Provider: localprovider.New(localprovider.Config{}),
		Agents: []freshet.Agent{{
			Name:     "count",
			Handler:  freshet.Command("sh", "-c", script),
			Timeout:  10 * time.Minute,
			Expected: 10 * time.Second,
			Pool:     freshet.Pool{Warm: 1},
		}},
		Limits: freshet.Limits{
			Workspaces: 20, Queued: 1000,
			Tenant: freshet.TenantLimits{Concurrent: 2, Queued: 10, PerHour: 100},
		},
		Logger: slog.Default(),
	})
	if err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	srv := &http.Server{Addr: addr, Handler: newServer(d), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.ListenAndServe() }()
	slog.Info("listening", "addr", addr)
	select {
	case <-ctx.Done():
		slog.Info("shutting down; agents that run may go on for a while")
	case err = <-failed:
	}
	stop() // a second signal ends the process at once
	return errors.Join(err, shutdown(srv, d))
}

// shutdown ends both at once: the server waits for its streams, and those end when the dispatcher begins to shut down.
func shutdown(srv *http.Server, d *freshet.Dispatcher) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var served error
	var wg sync.WaitGroup
	wg.Go(func() { served = srv.Shutdown(ctx) })
	err := d.Shutdown(ctx)
	wg.Wait()
	return errors.Join(err, served)
}
