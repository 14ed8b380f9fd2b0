package freshet

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"time"
)

// idText sorts as its bytes do, in characters that fit labels, file names and URLs.
var idText = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// newID is 26 characters: 48 bits of milliseconds, so that ids sort by time, and 80 random bits.
func newID(now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:])
	return idText.EncodeToString(b[:])
}

// newToken names a workspace before it exists.
func newToken() string {
	var b [15]byte
	rand.Read(b[:])
	return "w" + idText.EncodeToString(b[:])
}

func newTokens(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = newToken()
	}
	return tokens
}
