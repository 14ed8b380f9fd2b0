// Command obliensim serves Oblien's wire on one address, control plane and runtime: a test server, not Oblien. Whoever
// reaches its address runs programs on this machine as this user.
//
//	go run ./provider/oblienprovider/obliensim -addr 127.0.0.1:0
//
// It prints one line with its URL and ends with SIGINT or SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/freshet-dev/freshet/provider/oblienprovider/obliensim/sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "obliensim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var cfg sim.Config
	addr := flag.String("addr", "127.0.0.1:0", "address to serve on; port 0 takes a free one")
	flag.StringVar(&cfg.Dir, "dir", "", "folder of the machines; a temporary one if empty")
	flag.StringVar(&cfg.ClientID, "client-id", "oblien_sim", "the client's id")
	flag.StringVar(&cfg.ClientSecret, "client-secret", "sk_sim", "the client's secret")
	flag.DurationVar(&cfg.Boot, "boot", 0, "from create to ready; 0: 30ms")
	flag.DurationVar(&cfg.Power, "power", 0, "how long stop, pause and the like take")
	flag.IntVar(&cfg.Limits.Workspaces, "max-workspaces", 0, "owned at once; 0: no limit")
	flag.IntVar(&cfg.Limits.Running, "max-running", 0, "running at once; 0: no limit")
	flag.Parse()

	s, err := sim.New(cfg)
	if err != nil {
		return err
	}
	url, err := s.Listen(*addr)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	fmt.Println("obliensim, a test server and not Oblien:", url)
	<-ctx.Done()
	return s.Close()
}
