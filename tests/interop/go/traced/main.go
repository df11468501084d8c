// Command traced is a Go Micro v5 service with Go Micro's own OpenTelemetry wrappers.
//
//	traced NAME NEXT NEXT_ADDRESS TOPIC PUBLISHED
//
// Its Relay.Pass calls Back.Finish of NEXT and publishes to PUBLISHED; it subscribes to TOPIC. It
// prints its address when it is ready and then every span that ends, one JSON object a line, until
// its standard input ends.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/client"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/server"
	"go-micro.dev/v5/wrapper/trace/opentelemetry"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
)

type Request struct {
	Name string `json:"name"`
}

type Reply struct {
	Greeting string `json:"greeting"`
}

type Relay struct {
	client                   client.Client
	next, address, published string
}

func (r *Relay) Pass(ctx context.Context, request *Request, reply *Reply) error {
	asked := r.client.NewRequest(r.next, "Back.Finish", request, client.WithContentType("application/json"))
	if err := r.client.Call(ctx, asked, reply, client.WithAddress(r.address)); err != nil {
		return err
	}
	message := r.client.NewMessage(r.published, request, client.WithMessageContentType("application/json"))
	return r.client.Publish(ctx, message)
}

// printer writes spans as they end.
type printer struct{}

func (printer) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	for _, span := range spans {
		print(map[string]string{
			"event": "span", "name": span.Name(), "trace": span.SpanContext().TraceID().String(),
			"span": span.SpanContext().SpanID().String(), "parent": span.Parent().SpanID().String(),
		})
	}
	return nil
}

func (printer) Shutdown(context.Context) error { return nil }

func print(line map[string]string) {
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "traced NAME NEXT NEXT_ADDRESS TOPIC PUBLISHED")
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(words []string) error {
	otel.SetTextMapPropagator(propagation.TraceContext{})
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSyncer(printer{})))
	found := registry.NewMDNSRegistry()
	events := broker.NewHttpBroker(broker.Registry(found), broker.Addrs("127.0.0.1:0"))
	plain := client.NewClient(client.Registry(found), client.Broker(events))
	relay := &Relay{opentelemetry.NewClientWrapper()(plain), words[1], words[2], words[4]}
	s := server.NewServer(
		server.Name(words[0]), server.Address("127.0.0.1:0"), server.Registry(found), server.Broker(events),
		server.WrapHandler(opentelemetry.NewHandlerWrapper()),
		server.WrapSubscriber(opentelemetry.NewSubscriberWrapper()),
	)
	if err := s.Handle(s.NewHandler(relay)); err != nil {
		return err
	}
	handled := func(context.Context, *Request) error { return nil }
	if err := s.Subscribe(s.NewSubscriber(words[3], handled)); err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	print(map[string]string{"event": "ready", "address": s.Options().Address})
	_, _ = io.Copy(io.Discard, os.Stdin)
	return s.Stop()
}
