package main

import (
	"go-micro.dev/v5/broker"
	brokernats "go-micro.dev/v5/broker/nats"
	"go-micro.dev/v5/events"
	"go-micro.dev/v5/events/natsjs"
	"go-micro.dev/v5/registry"
	registrynats "go-micro.dev/v5/registry/nats"
	"go-micro.dev/v5/transport"
	transportnats "go-micro.dev/v5/transport/nats"
)

func init() {
	registries["nats"] = func(addresses ...string) registry.Registry {
		return registrynats.NewNatsRegistry(registry.Addrs(addresses...))
	}
	brokers["nats"] = func(addresses ...string) broker.Broker {
		return brokernats.NewNatsBroker(broker.Addrs(addresses...))
	}
	brokers["natsjs"] = func(addresses ...string) broker.Broker {
		return &streams{address: "nats://" + addresses[0]}
	}
	transports["nats"] = func(addresses ...string) transport.Transport {
		return transportnats.NewTransport(transport.Addrs(addresses...))
	}
}

// streams shows Go Micro's events streams as a broker: a queue is a group of consumers.
type streams struct {
	address string
	stream  events.Stream
}

type event struct{ events.Event }

func (e event) Topic() string { return e.Event.Topic }
func (e event) Ack() error    { return e.Event.Ack() }
func (e event) Error() error  { return nil }
func (e event) Message() *broker.Message {
	return &broker.Message{Header: e.Metadata, Body: e.Payload}
}

type consumption struct{ topic string }

func (c consumption) Options() broker.SubscribeOptions { return broker.SubscribeOptions{} }
func (c consumption) Topic() string                    { return c.topic }
func (c consumption) Unsubscribe() error               { return nil }

func (s *streams) Init(...broker.Option) error { return nil }
func (s *streams) Options() broker.Options     { return broker.Options{} }
func (s *streams) Address() string             { return s.address }
func (s *streams) Disconnect() error           { return nil }
func (s *streams) String() string              { return "natsjs" }

func (s *streams) Connect() (err error) {
	if s.stream == nil {
		s.stream, err = natsjs.NewStream(natsjs.Address(s.address), natsjs.SynchronousPublish(true))
	}
	return err
}

func (s *streams) Publish(topic string, m *broker.Message, _ ...broker.PublishOption) error {
	if err := s.Connect(); err != nil {
		return err
	}
	return s.stream.Publish(topic, m.Body, events.WithMetadata(m.Header))
}

func (s *streams) Subscribe(topic string, handler broker.Handler, options ...broker.SubscribeOption) (broker.Subscriber, error) {
	var chosen broker.SubscribeOptions
	for _, option := range options {
		option(&chosen)
	}
	var consume []events.ConsumeOption
	if chosen.Queue != "" {
		consume = append(consume, events.WithGroup(chosen.Queue))
	}
	arriving, err := s.stream.Consume(topic, consume...)
	if err != nil {
		return nil, err
	}
	go func() {
		for one := range arriving {
			_ = handler(event{one})
		}
	}()
	return consumption{topic}, nil
}
