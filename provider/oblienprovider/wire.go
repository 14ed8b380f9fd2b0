package oblienprovider

import (
	"strings"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// createBody is the body of POST /workspace. Resources go into config, which is where Oblien looks for them.
type createBody struct {
	Name           string         `json:"name"`
	Slug           string         `json:"slug"`
	Image          string         `json:"image,omitempty"`
	Namespace      string         `json:"namespace,omitempty"`
	Mode           string         `json:"mode"`
	WaitReady      bool           `json:"wait_ready"`
	IdempotencyKey string         `json:"idempotency_key"`
	Config         map[string]any `json:"config"`
}

// machine is the workspace object of Oblien, as far as it is read.
type machine struct {
	ID        string `json:"id"`
	Slug      string `json:"slug"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Ready     *bool  `json:"ready"`
	Status    string `json:"status"` // of the record: "active" also when the machine has stopped
	Info      *info  `json:"info"`
	Provision *struct {
		State string `json:"state"`
		Phase string `json:"phase"`
		Error *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	} `json:"provisioning"`
	Lifecycle *lifecycle `json:"lifecycle"`
	CreatedAt string     `json:"created_at"`
}

type info struct {
	Status            string `json:"status"`
	IsRunning         bool   `json:"is_running"`
	UserRequestedStop bool   `json:"user_requested_stop"`
}

type lifecycle struct {
	Expires  string `json:"ttl_expires_at"`
	Expires2 string `json:"expires_at"`
	Action   string `json:"ttl_action"`
}

func (l *lifecycle) expires() time.Time {
	if l == nil {
		return time.Time{}
	}
	return timeOf(orElse(l.Expires, l.Expires2))
}

func timeOf(s string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// live is the state of the machine itself, by Oblien's name.
func (m *machine) live() string {
	switch {
	case m.Info != nil && m.Info.Status != "":
		return strings.ToLower(m.Info.Status)
	case m.Info != nil && m.Info.IsRunning:
		return "running"
	}
	return strings.ToLower(m.Status)
}

// state is the state in the words of provider, and why when it is Failed. up: the control plane takes it for ready.
func (m *machine) state() (state provider.State, up bool, why string) {
	live := m.live()
	if p := m.Provision; p != nil {
		switch {
		case p.Phase == "deleting":
			return provider.Deleting, false, ""
		case p.State == "failed":
			why = "CREATE_FAILED"
			if p.Error != nil {
				why = strings.TrimSpace(orElse(p.Error.Code, why) + " " + p.Error.Message)
			}
			return provider.Failed, false, why
		case p.State == "queued", p.State == "running":
			if live == "deleting" {
				return provider.Deleting, false, ""
			}
			return provider.Creating, false, ""
		}
	}
	switch live {
	case "running", "active":
		if m.Ready != nil {
			return provider.Running, *m.Ready, ""
		}
		return provider.Running, m.Provision == nil, ""
	case "creating", "starting", "queued", "preparing", "initializing", "pending":
		return provider.Creating, false, ""
	case "paused", "suspended", "hibernated":
		return provider.Paused, false, ""
	case "deleting", "removing", "destroying":
		return provider.Deleting, false, ""
	case "stopped", "exited":
		if m.Info != nil && m.Info.UserRequestedStop {
			return provider.Paused, false, ""
		}
		return provider.Failed, false, "the machine has stopped by itself"
	case "error", "failed", "crashed":
		return provider.Failed, false, "the machine is in state " + live
	}
	return provider.Changing, false, ""
}

// quota is the answer of GET /workspace/quota, whose fields have two spellings.
type quota struct {
	Max      *int `json:"maxWorkspaces"`
	Max2     *int `json:"max_sandboxes"`
	Current  *int `json:"currentWorkspaces"`
	Current2 *int `json:"current_sandboxes"`
	Usage    struct {
		Count int `json:"count"`
	} `json:"pool_usage"`
}

func firstOf(values ...*int) int {
	for _, v := range values {
		if v != nil {
			return *v
		}
	}
	return 0
}
