package main

import (
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/etcd"
)

func init() {
	registries["etcd"] = func(addresses ...string) registry.Registry {
		return etcd.NewEtcdRegistry(registry.Addrs(addresses...))
	}
}
