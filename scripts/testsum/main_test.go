package main

import (
	"strings"
	"testing"
)

func TestSum(t *testing.T) {
	const (
		pass = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"pass","Package":"p","Test":"TestA"}
`
		end = `{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
		endFail = `{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`
	)
	for _, c := range []struct {
		name, in, want string
		strict, ok     bool
	}{
		{name: "passed tests are silent", in: pass + end, want: "ok  \tp\t0.1s\n2 passed, 0 failed\n", ok: true},
		{
			name: "a failed test shows what it wrote",
			in: pass + `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
` + endFail,
			want: "    b_test.go:1: wrong\nFAIL\tp\t0.1s\n2 passed, 1 failed\n",
		},
		{
			name: "a build that fails is one failure",
			in: `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: syntax error\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"start","Package":"p"}
` + endFail,
			want: "p.go:1: syntax error\nFAIL\tp\t0.1s\n0 passed, 1 failed\n",
		},
		{
			name: "a test that never ends is a failure",
			in: pass + `{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"panic: out of time\n"}
` + endFail,
			want: "did not end: TestB in p\npanic: out of time\nFAIL\tp\t0.1s\n2 passed, 1 failed\n",
		},
		{
			name: "skipped",
			in:   pass + `{"Action":"skip","Package":"p","Test":"TestB"}` + "\n" + end,
			want: "ok  \tp\t0.1s\n1 skipped\n2 passed, 0 failed\n", ok: true,
		},
		{
			name: "skipped where it should have run", strict: true,
			in:   pass + `{"Action":"skip","Package":"p","Test":"TestB"}` + "\n" + end,
			want: "did not run: TestB in p\nok  \tp\t0.1s\n2 passed, 1 failed\n",
		},
		{
			name: "a skipped subtest", strict: true,
			in:   pass + `{"Action":"skip","Package":"p","Test":"TestA/sub2"}` + "\n" + end,
			want: "ok  \tp\t0.1s\n1 skipped\n2 passed, 0 failed\n", ok: true,
		},
		{name: "nothing ran", in: "go: no such module\n", want: "go: no such module\n0 passed, 0 failed\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			if ok := sum(strings.NewReader(c.in), &out, c.strict); ok != c.ok {
				t.Errorf("ok is %v, want %v", ok, c.ok)
			}
			if out.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", out.String(), c.want)
			}
		})
	}
}
