package fakeprovider_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
	"github.com/freshet-dev/freshet/provider/fakeprovider"
	"github.com/freshet-dev/freshet/provider/providertest"
)

// scripted makes a command that play does.
func scripted(actions ...providertest.Action) provider.Cmd {
	text, err := json.Marshal(actions)
	if err != nil {
		panic(err)
	}
	return provider.Cmd{Args: []string{"script", string(text)}}
}

// play is a Main that does the actions of a command made by scripted.
func play(ctx context.Context, p *fakeprovider.Process) int {
	if p.Cmd.Args[0] != "script" {
		return 127
	}
	var actions []providertest.Action
	if err := json.Unmarshal([]byte(p.Cmd.Args[1]), &actions); err != nil {
		return 126
	}
	s := &script{ctx: ctx, p: p}
	defer s.children.Wait()
	if code, ended := s.play(actions); ended {
		p.Crash(provider.Exit{Code: code}) // at once: children may live on
	} else {
		p.Crash(provider.Exit{})
	}
	return 0
}

type script struct {
	ctx      context.Context
	p        *fakeprovider.Process
	children sync.WaitGroup // and handlers of signals
}

func (s *script) play(actions []providertest.Action) (code int, ended bool) {
	for _, a := range actions {
		if s.ctx.Err() != nil {
			return 0, true
		}
		if a.Verb == providertest.Exit {
			return a.N, true
		}
		if code := s.do(a); code != 0 {
			return code, true
		}
	}
	return 0, false
}

func (s *script) do(a providertest.Action) (code int) {
	p := s.p
	switch a.Verb {
	case providertest.Cat:
		p.Stdout.Write(p.Cmd.Stdin)
	case providertest.Out:
		fmt.Fprintln(p.Stdout, a.Text)
	case providertest.Err:
		fmt.Fprintln(p.Stderr, a.Text)
	case providertest.Env:
		fmt.Fprintln(p.Stdout, p.Cmd.Env[a.Text])
	case providertest.Lines:
		for i := 1; i <= a.N; i++ {
			fmt.Fprintf(p.Stdout, "out %d\n", i)
			fmt.Fprintf(p.Stderr, "err %d\n", i)
		}
	case providertest.Flood:
		page := make([]byte, 0, 64<<10)
		for i := 1; i <= a.N; i++ {
			number := strconv.Itoa(i)
			page = append(page, "000000000000000"[len(number):]...)
			page = append(append(page, number...), '\n')
			if len(page) > 32<<10 || i == a.N {
				p.Stdout.Write(page)
				page = page[:0]
			}
		}
	case providertest.Tick:
		for p.Sleep(50*time.Millisecond) == nil {
			fmt.Fprintln(p.Stdout, "tick")
		}
	case providertest.Beat:
		for p.Sleep(50*time.Millisecond) == nil {
			old, _ := p.ReadFile(a.Path)
			p.WriteFile(a.Path, append(old, "beat\n"...))
		}
	case providertest.Write:
		if p.WriteFile(a.Path, []byte(a.Text)) != nil {
			return 1
		}
	case providertest.Read:
		data, err := p.ReadFile(a.Path)
		if err != nil {
			return 1
		}
		p.Stdout.Write(data)
	case providertest.Size:
		data, _ := p.ReadFile(a.Path)
		fmt.Fprintln(p.Stdout, len(data))
	case providertest.Link:
		if fakeprovider.Symlink(p, a.Text, a.Path) != nil {
			return 1
		}
	case providertest.Sleep:
		p.Sleep(time.Duration(a.N) * time.Millisecond)
	case providertest.Hang:
		<-s.ctx.Done()
	case providertest.OnTerm:
		term := p.Term()
		s.children.Go(func() {
			select {
			case <-term:
				fmt.Fprintln(p.Stdout, "term")
				p.Crash(provider.Exit{Code: a.N})
			case <-s.ctx.Done():
			}
		})
	case providertest.IgnoreTerm:
		p.Term()
	case providertest.Spawn:
		s.children.Go(func() { s.play(a.Then) })
	case providertest.Burn:
		p.Burn(300 * time.Millisecond)
	case providertest.KillSelf:
		p.Crash(provider.Exit{Signal: "SIGKILL"})
	}
	return 0
}
