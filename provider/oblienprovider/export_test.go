package oblienprovider

import (
	"archive/tar"
	"encoding/json"
	"time"

	"github.com/freshet-dev/freshet/provider"
)

// State is what a workspace object of Oblien's means.
func State(object string) (state provider.State, up bool, err error) {
	var m machine
	err = json.Unmarshal([]byte(object), &m)
	state, up, _ = m.state()
	return state, up, err
}

// Archive checks the entries of an archive one after the other.
func Archive(entries ...tar.Header) error {
	t := tree{".": tar.TypeDir}
	for _, h := range entries {
		if _, _, err := t.add(&h); err != nil {
			return err
		}
	}
	return nil
}

// Parts of the package that are tables in its tests.
var (
	CPUTime    = cpuTime
	ParseExit  = parseExit
	ParseSlug  = parseSlug
	RetryAfter = func(header string, now time.Time) time.Duration { return retryAfter(header, now) }
)
