// Command gomicro is Go Micro's own client and server: JSON over its http transport. The client
// selects the node from a registry in memory, so no discovery is timed.
package main

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/client"
	"go-micro.dev/v5/logger"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/selector"
	"go-micro.dev/v5/server"

	"shoal/bench/load"
)

const service = "greeter"

// Greeter is the service.
type Greeter struct{}

// Hello says hello.
func (Greeter) Hello(_ context.Context, req *load.HelloRequest, rsp *load.HelloReply) error {
	rsp.Greeting = "Hello " + req.Name
	return nil
}

func serve() (int, error) {
	srv := server.NewServer(
		server.Name(service),
		server.Address("127.0.0.1:0"),
		server.Registry(registry.NewMemoryRegistry()),
		server.Broker(broker.NewMemoryBroker()),
	)
	if err := srv.Handle(srv.NewHandler(Greeter{})); err != nil {
		return 0, err
	}
	if err := srv.Start(); err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(srv.Options().Address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

func connect(port int) (load.Call, error) {
	nodes := registry.NewMemoryRegistry()
	err := nodes.Register(&registry.Service{
		Name:    service,
		Version: "latest",
		Nodes: []*registry.Node{{
			Id:       service + "-1",
			Address:  fmt.Sprintf("127.0.0.1:%d", port),
			Metadata: map[string]string{"protocol": "mucp"},
		}},
	})
	if err != nil {
		return nil, err
	}
	c := client.NewClient(
		client.Registry(nodes),
		client.Selector(selector.NewSelector(selector.Registry(nodes))),
		client.Broker(broker.NewMemoryBroker()),
		client.ContentType("application/json"),
	)
	return func(name string) (string, error) {
		var reply load.HelloReply
		req := c.NewRequest(service, "Greeter.Hello", &load.HelloRequest{Name: name})
		err := c.Call(context.Background(), req, &reply)
		return reply.Greeting, err
	}, nil
}

func main() {
	if err := logger.Init(logger.WithLevel(logger.ErrorLevel)); err != nil {
		panic(err)
	}
	load.Main(serve, connect)
}
