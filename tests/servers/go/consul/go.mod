// Consul's own go.mod replaces modules by folders, which go install refuses. Here its modules are
// the published ones.
module shoal/tests/servers/consul

go 1.26

require github.com/hashicorp/consul v1.22.3

exclude (
	github.com/hashicorp/go-msgpack v1.1.5
	github.com/hashicorp/go-msgpack v1.1.6
)
