package main

import (
	"strings"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/transport"

	"shoal.test/peer"
)

// Backends by the name in `--registry name://address`, and so on; each has a file here.
var (
	registries = map[string]func(addresses ...string) registry.Registry{}
	brokers    = map[string]func(addresses ...string) broker.Broker{}
	transports = map[string]func(addresses ...string) transport.Transport{}
)

// newRegistry returns the registry of a flag: a name of registries, mdns, or none.
func newRegistry(flag string) registry.Registry {
	name, address, _ := strings.Cut(flag, "://")
	if make, ok := registries[name]; ok {
		return make(strings.Split(address, ",")...)
	}
	if name == "none" {
		return registry.NewMemoryRegistry()
	}
	return registry.NewMDNSRegistry()
}

// newBroker returns the broker of a flag: a name of brokers, http, or none.
func newBroker(o peer.Options, r registry.Registry) broker.Broker {
	name, address, _ := strings.Cut(o.Broker, "://")
	if make, ok := brokers[name]; ok {
		return make(strings.Split(address, ",")...)
	}
	if name == "none" {
		return broker.NewMemoryBroker()
	}
	return broker.NewHttpBroker(broker.Registry(r), broker.Addrs(o.BrokerAddress))
}

// newTransport returns the transport of a flag: a name of transports, or http.
func newTransport(flag string) transport.Transport {
	name, address, _ := strings.Cut(flag, "://")
	if make, ok := transports[name]; ok {
		return make(strings.Split(address, ",")...)
	}
	return transport.NewHTTPTransport()
}
