package main

import (
	"github.com/micro/go-micro/v2/transport"
	transportrabbitmq "github.com/micro/go-plugins/transport/rabbitmq/v2"
)

func init() {
	transports["rabbitmq"] = func(addresses ...string) transport.Transport {
		for at, address := range addresses {
			addresses[at] = "amqp://" + address
		}
		return transportrabbitmq.NewTransport(transport.Addrs(addresses...))
	}
}
