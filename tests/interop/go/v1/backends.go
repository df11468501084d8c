package main

import (
	"strings"

	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/mdns"
	"github.com/micro/go-micro/registry/memory"
)

// registries make a registry by the name in `--registry name://address`; each has a file here.
var registries = map[string]func(addresses ...string) registry.Registry{}

// newRegistry returns the registry of a flag: a name of registries, mdns, or none.
func newRegistry(flag string) registry.Registry {
	name, address, _ := strings.Cut(flag, "://")
	if make, ok := registries[name]; ok {
		return make(strings.Split(address, ",")...)
	}
	if name == "none" {
		return memory.NewRegistry()
	}
	return mdns.NewRegistry()
}
