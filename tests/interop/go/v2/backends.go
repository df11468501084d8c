package main

import (
	"strings"

	"github.com/micro/go-micro/v2/broker"
	httpbroker "github.com/micro/go-micro/v2/broker/http"
	memorybroker "github.com/micro/go-micro/v2/broker/memory"
	"github.com/micro/go-micro/v2/registry"
	"github.com/micro/go-micro/v2/registry/mdns"
	"github.com/micro/go-micro/v2/registry/memory"
	"github.com/micro/go-micro/v2/transport"
	httptransport "github.com/micro/go-micro/v2/transport/http"

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
		return memory.NewRegistry()
	}
	return mdns.NewRegistry()
}

// newBroker returns the broker of a flag: a name of brokers, http, or none.
func newBroker(o peer.Options, r registry.Registry) broker.Broker {
	name, address, _ := strings.Cut(o.Broker, "://")
	if make, ok := brokers[name]; ok {
		return make(strings.Split(address, ",")...)
	}
	if name == "none" {
		return memorybroker.NewBroker()
	}
	return httpbroker.NewBroker(broker.Registry(r), broker.Addrs(o.BrokerAddress))
}

// newTransport returns the transport of a flag: a name of transports, or http.
func newTransport(flag string) transport.Transport {
	name, address, _ := strings.Cut(flag, "://")
	if make, ok := transports[name]; ok {
		return make(strings.Split(address, ",")...)
	}
	return httptransport.NewTransport()
}
