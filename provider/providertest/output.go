package providertest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

func outputCases() []conformance {
	return []conformance{
		{
			name: "output/streams",
			rule: "Output is complete and in order, for each of the two streams, or all of it Stdout.",
			run:  outputStreams,
		},
		{
			name: "output/follow",
			rule: "Output shows what a running process writes as it writes it, and ends after the end of the process.",
			run:  outputFollow,
		},
		{
			name: "output/offsets",
			rule: "Output from an offset goes on at exactly this byte, for a process that runs and for one that has ended. From the end on it yields nothing.",
			run:  outputOffsets,
		},
		{
			name: "output/resumed",
			rule: "Who reads a running process chunk by chunk, each time anew from Chunk.Next, gets every byte once.",
			run:  outputResumed,
		},
		{
			name: "output/readers",
			rule: "Several readers get the same.",
			run:  outputReaders,
		},
		{
			name: "output/unread",
			rule: "A process that writes megabytes which nobody reads is not held up, and nothing of it is lost.",
			run: func(e *env) {
				w := e.boot()
				p := e.start(w.ID, "flood", Action{Verb: Flood, N: 250_000})
				if exit := e.exit(p); exit.Code != 0 {
					e.t.Errorf("Wait: %+v", exit)
				}
				got, err := e.read(p, provider.Offset{})
				e.must("Output", err)
				flooded(e, got.out, 0, 250_000)
			},
		},
		{
			name: "output/context",
			rule: "The end of the context ends Output with the context's error; the process goes on.",
			run: func(e *env) {
				w := e.boot()
				p := e.start(w.ID, "quiet", Action{Verb: Out, Text: "up"}, Action{Verb: Hang})
				up := e.await(p, provider.Offset{}, "up")
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				defer cancel()
				_, err := e.readUntil(ctx, p, up.next, func(output) bool { return false })
				e.want("Output", err, context.DeadlineExceeded)
				e.must("Signal", p.Signal(e.ctx(), provider.Kill))
				e.exit(p)
			},
		},
		{
			name: "output/orphan",
			rule: "A process has ended when it has exited, although a child of it lives and holds its output open: Wait and Output end.",
			run: func(e *env) {
				w := e.boot()
				p := e.start(w.ID, "parent", Action{Verb: Spawn, Then: []Action{{Verb: Hang}}}, Action{Verb: Out, Text: "bye"}, Action{Verb: Exit, N: 3})
				if exit := e.exit(p); exit.Code != 3 {
					e.t.Errorf("Wait: %+v", exit)
				}
				got, err := e.read(p, provider.Offset{})
				e.must("Output", err)
				if string(got.out) != "bye\n" {
					e.t.Errorf("Output: %q", got.out)
				}
			},
		},
	}
}

// flooded checks the output of Flood of n lines, from an offset on.
func flooded(e *env, got []byte, from int64, n int) {
	e.t.Helper()
	want := flood(n)[from:]
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			e.t.Errorf("output from %d: byte %d is %q, want %q", from, i, got[i:min(i+16, len(got))], want[i:min(i+16, len(want))])
			return
		}
	}
	e.t.Errorf("output from %d: %d bytes, want %d", from, len(got), len(want))
}

func flood(n int) []byte {
	all := make([]byte, 0, 16*n)
	line := []byte("000000000000000\n")
	for range n {
		for i := 14; ; i-- { // count up
			if line[i] != '9' {
				line[i]++
				break
			}
			line[i] = '0'
		}
		all = append(all, line...)
	}
	return all
}

func outputStreams(e *env) {
	const n = 200
	w := e.boot()
	got, err := e.read(e.start(w.ID, "lines", Action{Verb: Lines, N: n}), provider.Offset{})
	e.must("Output", err)
	var stdout, stderr strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&stdout, "out %d\n", i)
		fmt.Fprintf(&stderr, "err %d\n", i)
	}
	gotOut, gotErr := string(got.out), string(got.err)
	if gotErr == "" { // the provider cannot tell the streams apart
		gotOut, gotErr = "", ""
		for line := range strings.Lines(string(got.out)) {
			if strings.HasPrefix(line, "err ") {
				gotErr += line
			} else {
				gotOut += line
			}
		}
	}
	if gotOut != stdout.String() {
		e.t.Errorf("standard output is %q", gotOut)
	}
	if gotErr != stderr.String() {
		e.t.Errorf("standard error is %q", gotErr)
	}
}

func outputFollow(e *env) {
	w := e.boot()
	p := e.start(w.ID, "ticker", Action{Verb: OnTerm}, Action{Verb: Tick})
	got := e.await(p, provider.Offset{}, "tick\ntick\n")
	more := e.await(p, got.next, "tick\n")
	e.must("Signal", p.Signal(e.ctx(), provider.Term))
	rest, err := e.read(p, more.next)
	e.must("Output", err)
	all := string(got.out) + string(more.out) + string(rest.out)
	if lines, ok := strings.CutSuffix(all, "term\n"); !ok || strings.ReplaceAll(lines, "tick\n", "") != "" {
		e.t.Errorf("Output: %q", all)
	}
	e.exit(p)
}

func outputOffsets(e *env) {
	const n = 20_000
	w := e.boot()
	p := e.start(w.ID, "flood", Action{Verb: Flood, N: n}, Action{Verb: Err, Text: "done"}, Action{Verb: Hang})
	e.until("all is written", func() bool {
		got, err := e.readUntil(e.ctx(), p, provider.Offset{}, func(o output) bool { return len(o.out) >= 16*n })
		return err == nil && len(got.out) >= 16*n
	})
	all := int64(16 * n)
	for _, ended := range []bool{false, true} {
		if ended {
			e.must("Signal", p.Signal(e.ctx(), provider.Kill))
			e.exit(p)
		}
		for _, from := range []int64{0, 1, 15, 16, 17, 4095, 4096, all / 2, all - 1} {
			got, err := e.readUntil(e.ctx(), p, provider.Offset{Stdout: from}, func(o output) bool { return from+int64(len(o.out)) >= all })
			e.must("Output", err)
			out := got.out
			if len(out) > int(all-from) { // what came on standard error, where it is not told apart
				out = out[:all-from]
			}
			flooded(e, out, from, n)
		}
	}
	whole, err := e.read(p, provider.Offset{})
	e.must("Output", err)
	rest, err := e.read(p, whole.next)
	e.must("Output from the end", err)
	if len(rest.out)+len(rest.err) > 0 || rest.next != whole.next {
		e.t.Errorf("Output from the end: %q, %q", rest.out, rest.err)
	}
}

func outputResumed(e *env) {
	const n = 3000
	w := e.boot()
	var actions []Action
	for range 3 {
		actions = append(actions, Action{Verb: Flood, N: n}, Action{Verb: Sleep, N: 60})
	}
	p := e.start(w.ID, "flood", actions...)
	var all []byte
	for from := (provider.Offset{}); ; {
		got, err := e.readUntil(e.ctx(), p, from, func(output) bool { return true })
		e.must("Output", err)
		if got.next == from {
			break
		}
		all, from = append(all, got.out...), got.next
	}
	if want := bytes.Repeat(flood(n), 3); !bytes.Equal(all, want) {
		e.t.Errorf("%d bytes, want %d, or others", len(all), len(want))
	}
}

func outputReaders(e *env) {
	const n = 20_000
	w := e.boot()
	p := e.start(w.ID, "flood", Action{Verb: Flood, N: n})
	ctx := e.ctx()
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			got, err := e.readUntil(ctx, p, provider.Offset{}, func(output) bool { return false })
			if err != nil {
				e.t.Errorf("Output: %v", err)
			}
			flooded(e, got.out, 0, n)
		})
	}
	readers.Wait()
}
