package main

import (
	"github.com/micro/go-micro/v2/registry"
	registrynats "github.com/micro/go-plugins/registry/nats/v2"
)

func init() {
	// Its subjects are not those of v5.
	registries["nats"] = func(addresses ...string) registry.Registry {
		return registrynats.NewRegistry(registry.Addrs(addresses...))
	}
}
