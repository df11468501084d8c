// Command peer is a Go Micro v2 program (its RPC client and server, not its gRPC ones) to test against; see package peer for the command line.
package main

import (
	"context"

	"github.com/micro/go-micro/v2/broker"
	"github.com/micro/go-micro/v2/client"
	mucpclient "github.com/micro/go-micro/v2/client/mucp"
	"github.com/micro/go-micro/v2/errors"
	"github.com/micro/go-micro/v2/metadata"
	"github.com/micro/go-micro/v2/registry"
	"github.com/micro/go-micro/v2/server"
	mucpserver "github.com/micro/go-micro/v2/server/mucp"
	"github.com/micro/go-micro/v2/transport"

	"shoal.test/peer"
)

// Greeter and Proto give the shared handlers this version's stream type.
type Greeter struct{ peer.Greeter[server.Stream] }

type Proto struct{ peer.Proto[server.Stream] }

type engine struct {
	options   peer.Options
	registry  registry.Registry
	broker    broker.Broker
	transport transport.Transport
	client    client.Client
}

func main() { peer.Main(&engine{}) }

func (e *engine) Init(o peer.Options) {
	e.options = o
	e.registry = newRegistry(o.Registry)
	e.broker = newBroker(o, e.registry)
	e.transport = newTransport(o.Transport)
	e.client = mucpclient.NewClient(
		client.Registry(e.registry), client.Broker(e.broker), client.Transport(e.transport),
	)
}

func (e *engine) Serve() (string, string, func() error, error) {
	o := e.options
	options := []server.Option{
		server.Name(o.Name), server.Version(o.Version), server.Address(o.Address), server.Metadata(o.Metadata),
		server.Registry(e.registry), server.Broker(e.broker), server.Transport(e.transport),
	}
	if o.ID != "" {
		options = append(options, server.Id(o.ID))
	}
	s := mucpserver.NewServer(options...)
	greeter := &Greeter{peer.Greeter[server.Stream]{NewError: errors.New, Metadata: header}}
	for _, handler := range []any{greeter, &Proto{}} {
		if err := s.Handle(s.NewHandler(handler)); err != nil {
			return "", "", nil, err
		}
	}
	if o.Topic != "" {
		subscriber := s.NewSubscriber(o.Topic, peer.Subscriber(o, header), server.SubscriberQueue(o.Queue))
		if err := s.Subscribe(subscriber); err != nil {
			return "", "", nil, err
		}
	}
	if err := s.Start(); err != nil {
		return "", "", nil, err
	}
	return s.Options().Address, o.Name + "-" + s.Options().Id, s.Stop, nil
}

func (e *engine) callOptions() []client.CallOption {
	o := e.options
	var options []client.CallOption
	if o.Address != "" {
		options = append(options, client.WithAddress(o.Address))
	}
	if o.Timeout > 0 {
		options = append(options, client.WithRequestTimeout(o.Timeout))
	}
	if o.StreamTimeout > 0 {
		options = append(options, client.WithStreamTimeout(o.StreamTimeout))
	}
	if o.Retries >= 0 {
		options = append(options, client.WithRetries(o.Retries))
	}
	return options
}

func (e *engine) request(body any, options ...client.RequestOption) client.Request {
	options = append(options, client.WithContentType(e.options.ContentType))
	return e.client.NewRequest(e.options.Service, e.options.Endpoint, body, options...)
}

func (e *engine) Call(ctx context.Context, request, reply any) error {
	return e.client.Call(ctx, e.request(request), reply, e.callOptions()...)
}

func (e *engine) Stream(ctx context.Context, open any) (peer.ClientStream, error) {
	return e.client.Stream(ctx, e.request(open, client.StreamingRequest()), e.callOptions()...)
}

func (e *engine) Publish(ctx context.Context, payload any) error {
	message := e.client.NewMessage(e.options.Topic, payload, client.WithMessageContentType(e.options.ContentType))
	return e.client.Publish(ctx, message)
}

func (e *engine) Subscribe(deliver func(string, map[string]string, []byte)) (string, string, func() error, error) {
	if err := e.broker.Connect(); err != nil {
		return "", "", nil, err
	}
	subscription, err := e.broker.Subscribe(e.options.Topic, func(event broker.Event) error {
		deliver(event.Topic(), event.Message().Header, event.Message().Body)
		return nil
	}, broker.Queue(e.options.Queue))
	if err != nil {
		return "", "", nil, err
	}
	stop := func() error {
		if err := subscription.Unsubscribe(); err != nil {
			return err
		}
		return e.broker.Disconnect()
	}
	return e.broker.Address(), "", stop, nil
}

func (e *engine) Context(ctx context.Context, pairs map[string]string) context.Context {
	return metadata.NewContext(ctx, pairs)
}

func (e *engine) ParseError(text string) peer.Error {
	parsed := errors.Parse(text)
	return peer.Error{ID: parsed.Id, Code: parsed.Code, Detail: parsed.Detail, Status: parsed.Status}
}

func (e *engine) Registry() peer.Registry { return discovery{e.registry} }

func header(ctx context.Context) map[string]string {
	pairs, _ := metadata.FromContext(ctx)
	return pairs
}

type discovery struct{ registry registry.Registry }

func (d discovery) Register(name, version, id, address string, pairs map[string]string) (func() error, error) {
	node := &registry.Node{Id: id, Address: address, Metadata: pairs}
	service := &registry.Service{Name: name, Version: version, Nodes: []*registry.Node{node}}
	return func() error { return d.registry.Deregister(service) }, d.registry.Register(service)
}

func (d discovery) Get(name string) (found []any, ids []string, err error) {
	services, err := d.registry.GetService(name)
	for _, service := range services {
		found = append(found, service)
		for _, node := range service.Nodes {
			ids = append(ids, node.Id)
		}
	}
	return found, ids, err
}

func (d discovery) List() (found []any, err error) {
	services, err := d.registry.ListServices()
	for _, service := range services {
		found = append(found, service)
	}
	return found, err
}

func (d discovery) Watch(name string, found func(string, any)) error {
	var options []registry.WatchOption
	if name != "" {
		options = append(options, registry.WatchService(name))
	}
	watcher, err := d.registry.Watch(options...)
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for {
		result, err := watcher.Next()
		if err != nil {
			return err
		}
		found(result.Action, result.Service)
	}
}
