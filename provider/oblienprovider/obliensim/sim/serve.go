package sim

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// apiError is an answer that is a failure.
type apiError struct {
	status  int
	code    string
	message string
	current int
	max     int
	after   time.Duration
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func refuse(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func notFound() *apiError { return refuse(http.StatusNotFound, "not_found", "Workspace not found") }

// object is a JSON object.
type object = map[string]any

// call is one request, and whose it is.
type call struct {
	*http.Request
	w     http.ResponseWriter
	scope scope    // of the control plane
	m     *machine // of the runtime
}

// into decodes the request's body, which may be empty.
func (c *call) into(out any) error {
	b, err := io.ReadAll(io.LimitReader(c.Body, 64<<20))
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return refuse(http.StatusBadRequest, "bad_request", "Invalid body: %v", err)
	}
	return nil
}

// streamed is the result of a handler that has answered by itself.
type streamed struct{}

// ServeHTTP serves the control plane and the runtime.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	s.work.Add(1)
	s.mu.Unlock()
	defer s.work.Done()
	w.Header().Set("X-Request-Id", "req_"+strings.ToLower(rand.Text()[:12]))
	f := s.fault(r)
	if f == nil {
		s.mux.ServeHTTP(w, r)
		return
	}
	if f.Delay > 0 && !sleep(r.Context(), f.Delay) {
		return
	}
	switch {
	case f.Drop == "before":
		panic(http.ErrAbortHandler)
	case f.Drop == "after":
		s.mux.ServeHTTP(&discard{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	case f.Status > 0:
		answer(w, nil, &apiError{status: f.Status, code: f.Code, message: f.Message, after: f.RetryAfter})
	default:
		s.mux.ServeHTTP(w, r)
	}
}

// discard takes an answer that nobody gets.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// answer writes a result or a failure.
func answer(w http.ResponseWriter, result any, err error) {
	if _, done := result.(streamed); done && err == nil {
		return
	}
	status, body := http.StatusOK, result
	if err != nil {
		e, ok := err.(*apiError)
		if !ok {
			e = refuse(http.StatusInternalServerError, "server_error", "%v", err)
		}
		o := object{"success": false, "error": e.code, "code": e.code, "message": e.message, "requestId": w.Header().Get("X-Request-Id")}
		if e.max > 0 {
			o["current"], o["max"] = e.current, e.max
		}
		if e.after > 0 {
			w.Header().Set("Retry-After", strconv.FormatFloat(e.after.Seconds(), 'f', -1, 64))
		}
		status, body = e.status, o
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (s *Server) routes() {
	control := func(pattern string, h func(*call) (any, error)) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			c := &call{Request: r, w: w}
			result, err := any(nil), s.authenticate(c)
			if err == nil {
				result, err = h(c)
			}
			answer(w, result, err)
		})
	}
	of := func(pattern string, h func(*call, *machine) (any, error)) {
		control(pattern, func(c *call) (any, error) {
			m, err := s.find(c, c.PathValue("id"))
			if err != nil {
				return nil, err
			}
			return h(c, m)
		})
	}
	runtime := func(pattern string, h func(*call) (any, error)) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			c := &call{Request: r, w: w}
			result, err := any(nil), s.admit(c)
			if err == nil {
				result, err = h(c)
			}
			answer(w, result, err)
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, refuse(http.StatusNotFound, "not_found", "No such route: %s %s", r.Method, r.URL.Path))
	})

	control("POST /workspace", s.create)
	control("GET /workspace", s.list)
	control("GET /workspace/quota", s.quota)
	of("GET /workspace/{id}", s.get)
	of("PUT /workspace/{id}", s.update)
	of("DELETE /workspace/{id}", s.remove)
	of("DELETE /workspace/{id}/lifecycle", s.remove)
	of("POST /workspace/{id}/provisioning/retry", s.retry)
	of("POST /workspace/{id}/start", s.start)
	of("POST /workspace/{id}/stop", s.stop)
	of("POST /workspace/{id}/restart", s.restart)
	of("POST /workspace/{id}/pause", s.pause)
	of("POST /workspace/{id}/resume", s.resume)
	of("POST /workspace/{id}/snapshot", s.snapshot)
	of("POST /workspace/{id}/restore", s.restore)
	of("POST /workspace/{id}/ping", s.ping)
	of("GET /workspace/{id}/lifecycle", s.lifecycle)
	of("POST /workspace/{id}/lifecycle/permanent", s.permanent)
	of("POST /workspace/{id}/lifecycle/temporary", s.temporary)
	of("PUT /workspace/{id}/lifecycle/ttl", s.temporary)
	of("GET /workspace/{id}/resources", s.resources)
	of("PUT /workspace/{id}/resources", s.resize)
	of("PATCH /workspace/{id}/resources", s.resize)
	of("GET /workspace/{id}/metadata", s.metadata)
	of("PUT /workspace/{id}/metadata", s.putMetadata)
	of("PATCH /workspace/{id}/metadata", s.putMetadata)
	of("GET /workspace/{id}/network", s.network)
	of("PATCH /workspace/{id}/network", s.patchNetwork)
	of("GET /workspace/{id}/stats", s.stats)
	of("GET /workspace/{id}/info", s.info)

	of("GET /workspace/{id}/runtime-api-access", s.accessStatus)
	of("POST /workspace/{id}/runtime-api-access/enable", s.enableAccess)
	of("POST /workspace/{id}/runtime-api-access/disable", s.disableAccess)
	of("GET /workspace/{id}/runtime-api-access/token", s.accessToken)
	of("POST /workspace/{id}/runtime-api-access/token", s.rotateToken)

	of("POST /workspace/{id}/workloads", s.createWorkload)
	of("GET /workspace/{id}/workloads", s.listWorkloads)
	of("DELETE /workspace/{id}/workloads", s.deleteWorkloads)
	of("GET /workspace/{id}/workloads/{wid}", s.getWorkload)
	of("DELETE /workspace/{id}/workloads/{wid}", s.deleteWorkloads)
	of("POST /workspace/{id}/workloads/{wid}/start", s.startWorkload)
	of("POST /workspace/{id}/workloads/{wid}/stop", s.stopWorkload)
	of("GET /workspace/{id}/workloads/{wid}/status", s.getWorkload)
	of("GET /workspace/{id}/workloads/{wid}/logs", s.workloadLogs)
	of("GET /workspace/{id}/workloads/{wid}/logs/stream", s.streamWorkloadLogs)

	control("POST /tokens", s.createToken)
	control("POST /namespaces", s.createNamespace)
	control("POST /namespaces/ensure", s.ensureNamespace)
	control("GET /namespaces", s.listNamespaces)
	control("GET /namespaces/{ns}", s.getNamespace)
	control("POST /namespaces/{ns}/suspend", s.suspendNamespace)
	control("POST /namespaces/{ns}/activate", s.activateNamespace)

	runtime("GET /health", func(*call) (any, error) { return object{"status": "ok"}, nil })
	runtime("GET /runtime", s.runtimeInfo)
	runtime("POST /exec", s.exec)
	runtime("POST /exec/stream", s.execStream)
	runtime("GET /exec/stream", s.subscribe)
	runtime("GET /exec", s.listTasks)
	runtime("GET /exec/{task}", s.getTask)
	runtime("DELETE /exec/{task}", s.deleteTasks)
	runtime("DELETE /exec", s.deleteTasks)
	runtime("GET /files", s.listFiles)
	runtime("GET /files/stream", s.streamFiles)
	runtime("GET /files/read", s.readFile)
	runtime("GET /files/stat", s.statFile)
	runtime("POST /files/write", s.writeFile)
	runtime("POST /files/mkdir", s.makeFolder)
	runtime("POST /files/delete", s.deleteFile)
	runtime("POST /files/transfer/upload", s.upload)
	runtime("POST /files/transfer/download", s.download)

	s.mux.HandleFunc("POST /_sim/faults", s.adminFaults)
	s.mux.HandleFunc("DELETE /_sim/faults", s.adminFaults)
	s.mux.HandleFunc("POST /_sim/workspaces/{id}/{what}", s.adminMachine)
}
