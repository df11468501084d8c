package main

import (
	"github.com/micro/go-micro/v2/broker"
	redisbroker "github.com/micro/go-plugins/broker/redis/v2"
)

func init() {
	brokers["redis"] = func(addresses ...string) broker.Broker {
		// By default a subscriber ends, without a word, when it has heard nothing for 5 s.
		return redisbroker.NewBroker(broker.Addrs(addresses...), redisbroker.ReadTimeout(0))
	}
}
