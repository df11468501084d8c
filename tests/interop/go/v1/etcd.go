package main

import (
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/etcd"
)

func init() {
	registries["etcd"] = func(addresses ...string) registry.Registry {
		return etcd.NewRegistry(registry.Addrs(addresses...))
	}
}
