package main

import (
	"strings"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/broker/rabbitmq"
)

func init() {
	brokers["rabbitmq"] = func(addresses ...string) broker.Broker {
		return rabbitmq.NewBroker(broker.Addrs("amqp://" + strings.Join(addresses, ",")))
	}
}
