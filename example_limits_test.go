package freshet_test

import (
	"errors"
	"fmt"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"

	"github.com/freshet-dev/freshet"
)

// A limit that refuses becomes an answer of HTTP. This Dispatcher is never started: a process that only submits needs no
// Provider.
func ExampleLimitError() {
	d, err := freshet.New(freshet.Config{
		Limits: freshet.Limits{Tenant: freshet.TenantLimits{PerHour: 2}},
	})
	if err != nil {
		log.Fatal(err)
	}
	launch := func(w http.ResponseWriter, r *http.Request) {
		id, err := d.Submit(r.Context(), freshet.Task{Agent: "analyse", Tenant: r.Header.Get("X-User")})
		var limit *freshet.LimitError
		switch {
		case errors.As(err, &limit):
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(limit.RetryAfter.Seconds()))))
			http.Error(w, limit.Error(), http.StatusTooManyRequests)
		case errors.Is(err, freshet.ErrInvalid):
			http.Error(w, err.Error(), http.StatusBadRequest)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			w.Header().Set("Location", "/tasks/"+id)
			w.WriteHeader(http.StatusAccepted)
		}
	}
	for _, user := range []string{"ann", "ann", "ann", "bob", ""} {
		r := httptest.NewRequest("POST", "/tasks", nil)
		r.Header.Set("X-User", user)
		w := httptest.NewRecorder()
		launch(w, r)
		fmt.Printf("%s: %d", user, w.Code)
		if w.Code == http.StatusTooManyRequests {
			fmt.Printf(", later=%t: %s", w.Header().Get("Retry-After") > "0", w.Body)
			continue
		}
		fmt.Println()
	}
	// Output:
	// ann: 202
	// ann: 202
	// ann: 429, later=true: limit "tenant per hour" of tenant "ann" reached: 2 of 2 in use
	// bob: 202
	// : 400
}
