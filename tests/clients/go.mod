module causeway.invalid/tests/clients

go 1.22.7

require github.com/containerd/nerdctl/v2 v2.0.3
