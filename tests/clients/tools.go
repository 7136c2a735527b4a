//go:build tools

// Package clients pins the Go clients that the tests drive. A module of our own instead of
// `go install`: the checksums below go.sum are verified without the checksum database, which not
// every module proxy serves.
package clients

import _ "github.com/containerd/nerdctl/v2/cmd/nerdctl"
