// Package peer is what the interop peers of all Go Micro versions share: command line, handlers, messages, output.
package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options are the flags, in the words of the command line.
type Options struct {
	Name, Version, ID, Address, Registry, Broker, BrokerAddress  string
	Transport                                                    string
	Metadata                                                     Pairs
	Topic, Queue                                                 string
	Proto                                                        bool
	Service, Endpoint, JSON, ContentType, Open                   string
	Sends                                                        List
	Count, CloseAfter, AbortAfter, Times, Parallel, Retries      int
	Timeout, ConnectionTimeout, StreamTimeout, Linger, SendEvery time.Duration
}

// Error is a Go Micro error as every version parses it.
type Error struct {
	ID     string `json:"id"`
	Code   int32  `json:"code"`
	Detail string `json:"detail"`
	Status string `json:"status"`
}

// ClientStream is the part of a client stream that is used here.
type ClientStream interface {
	Send(any) error
	Recv(any) error
	Close() error
}

// Engine is one version of Go Micro.
type Engine interface {
	Init(Options)
	// Serve registers the handlers and returns once the server listens and is registered.
	Serve() (address, id string, stop func() error, err error)
	Call(ctx context.Context, request, reply any) error
	Stream(ctx context.Context, open any) (ClientStream, error)
	Publish(ctx context.Context, payload any) error
	Subscribe(deliver func(topic string, header map[string]string, body []byte)) (address, id string, stop func() error, err error)
	Context(ctx context.Context, metadata map[string]string) context.Context
	ParseError(text string) Error
	Registry() Registry
}

// Registry is a Go Micro registry; services are returned as that version's JSON writes them.
type Registry interface {
	Register(name, version, id, address string, metadata map[string]string) (stop func() error, err error)
	Get(name string) (services []any, ids []string, err error)
	List() ([]any, error)
	Watch(name string, found func(action string, service any)) error
}

// Pairs is a repeatable k=v flag.
type Pairs map[string]string

func (p Pairs) String() string { return "" }

// Set adds one k=v.
func (p Pairs) Set(text string) error {
	key, value, found := strings.Cut(text, "=")
	if !found {
		return fmt.Errorf("%q is not k=v", text)
	}
	p[key] = value
	return nil
}

// List is a repeatable flag.
type List []string

func (l *List) String() string { return "" }

// Set adds one value.
func (l *List) Set(text string) error {
	*l = append(*l, text)
	return nil
}

var (
	// stdout carries the JSON lines alone: some versions log to os.Stdout.
	stdout  = os.Stdout
	writing sync.Mutex
)

// Say prints one JSON object on a line of its own.
func Say(object map[string]any) {
	line, err := json.Marshal(object)
	if err != nil {
		line, _ = json.Marshal(map[string]any{"event": "unprintable", "text": err.Error()})
	}
	writing.Lock()
	defer writing.Unlock()
	stdout.Write(append(line, '\n'))
}

const usage = `usage: peer serve     --name NAME [--version V] [--id ID] [--address H:P] [--registry mdns|none|NAME://ADDRESS]
                      [--broker http|none|NAME://ADDRESS] [--broker-address H:P] [--transport http|NAME://ADDRESS] [--metadata k=v]... [--subscribe TOPIC] [--queue Q] [--proto]
       peer call      --service S --endpoint E [--json J] [--content-type T] [--address H:P] [--registry R] [--transport T]
                      [--timeout D] [--connection-timeout D] [--retries N] [--times N] [--parallel N]
                      [--send-every D] [--metadata k=v]... [--proto]
       peer stream    the same, and [--open J] [--send J]... [--count N] [--close-after N] [--abort-after N]
                      [--stream-timeout D]
       peer publish   --topic T [--json J] [--content-type T] [--metadata k=v]... [--times N] [--linger D] [--broker B] [--proto]
       peer subscribe --topic T [--queue Q] [--broker B] [--broker-address H:P]
       (J is JSON, or @FILE)
       peer registry  get NAME | list | watch [NAME] | hold NAME --id ID --address H:P [--version V] [--metadata k=v]...
`

// Main runs the command line on one version and does not return.
func Main(engine Engine) {
	os.Stdout = os.Stderr
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	command, arguments := os.Args[1], os.Args[2:]
	var action, name string
	if command == "registry" {
		action, name, arguments = registryWords(arguments)
	}
	options := parse(command, arguments)
	engine.Init(options)
	var err error
	switch command {
	case "serve":
		err = serve(engine, options)
	case "call":
		err = call(engine, options)
	case "stream":
		err = stream(engine, options)
	case "publish":
		err = publish(engine, options)
	case "subscribe":
		err = subscribe(engine)
	case "registry":
		err = registry(engine, options, action, name)
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		Say(map[string]any{"ok": false, "text": err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

func parse(command string, arguments []string) Options {
	o := Options{Metadata: Pairs{}}
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flags.StringVar(&o.Name, "name", "greeter", "")
	flags.StringVar(&o.Version, "version", "latest", "")
	flags.StringVar(&o.ID, "id", "", "")
	flags.StringVar(&o.Address, "address", "", "")
	flags.StringVar(&o.Registry, "registry", "mdns", "")
	flags.StringVar(&o.Broker, "broker", "http", "")
	flags.StringVar(&o.Transport, "transport", "http", "")
	flags.StringVar(&o.BrokerAddress, "broker-address", "127.0.0.1:0", "")
	flags.Var(o.Metadata, "metadata", "")
	flags.StringVar(&o.Topic, "topic", "", "")
	flags.StringVar(&o.Topic, "subscribe", "", "")
	flags.StringVar(&o.Queue, "queue", "", "")
	flags.BoolVar(&o.Proto, "proto", false, "")
	flags.StringVar(&o.Service, "service", "greeter", "")
	flags.StringVar(&o.Endpoint, "endpoint", "Greeter.Hello", "")
	flags.StringVar(&o.JSON, "json", "{}", "")
	flags.StringVar(&o.ContentType, "content-type", "", "")
	flags.StringVar(&o.Open, "open", "{}", "")
	flags.Var(&o.Sends, "send", "")
	flags.IntVar(&o.Count, "count", 1, "")
	flags.IntVar(&o.CloseAfter, "close-after", -1, "")
	flags.IntVar(&o.AbortAfter, "abort-after", -1, "")
	flags.IntVar(&o.Times, "times", 1, "")
	flags.IntVar(&o.Parallel, "parallel", 1, "")
	flags.IntVar(&o.Retries, "retries", -1, "")
	flags.DurationVar(&o.Timeout, "timeout", 0, "")
	flags.DurationVar(&o.ConnectionTimeout, "connection-timeout", 0, "")
	flags.DurationVar(&o.StreamTimeout, "stream-timeout", 0, "")
	flags.DurationVar(&o.Linger, "linger", 500*time.Millisecond, "")
	flags.DurationVar(&o.SendEvery, "send-every", 0, "")
	_ = flags.Parse(arguments)
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "peer: what is %q?\n%s", flags.Arg(0), usage)
		os.Exit(2)
	}
	if o.ContentType == "" {
		o.ContentType = "application/json"
		if o.Proto {
			o.ContentType = "application/protobuf"
		}
	}
	for _, text := range []*string{&o.JSON, &o.Open} {
		*text = fromFile(*text)
	}
	for i := range o.Sends {
		o.Sends[i] = fromFile(o.Sends[i])
	}
	if o.Address == "" && command == "serve" {
		o.Address = "127.0.0.1:0"
	}
	return o
}

// fromFile reads @PATH, for what is too long for a command line.
func fromFile(text string) string {
	path, found := strings.CutPrefix(text, "@")
	if !found {
		return text
	}
	content, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(2)
	}
	return string(content)
}

func registryWords(arguments []string) (action, name string, rest []string) {
	words := []string{"", ""}
	for i := 0; i < 2 && len(arguments) > 0 && !strings.HasPrefix(arguments[0], "-"); i++ {
		words[i], arguments = arguments[0], arguments[1:]
	}
	return words[0], words[1], arguments
}

// ready says so, and returns when the process is asked to end: SIGTERM, SIGINT or the end of
// standard input. Whoever hears it may ask at once.
func ready(event map[string]any) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	Say(event)
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
		close(ended)
	}()
	select {
	case <-signals:
	case <-ended:
	}
}

func serve(engine Engine, o Options) error {
	address, id, stop, err := engine.Serve()
	if err != nil {
		return err
	}
	if o.Registry == "mdns" {
		if err := visible(engine.Registry(), o.Name, id); err != nil {
			return err
		}
	}
	ready(map[string]any{"event": "ready", "address": address, "id": id})
	return stop()
}

// visible waits until a look-up finds the node.
func visible(registry Registry, name, id string) error {
	for range 50 {
		_, ids, _ := registry.Get(name)
		for _, seen := range ids {
			if seen == id {
				return nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("node %s of %s was registered but a look-up does not find it", id, name)
}

// found tries again while a look-up finds nobody: Go waits 100 ms for answers to its multicast, which is too short on a
// busy machine, and nothing has been sent then.
func found(o Options, try func() error) error {
	err := try()
	for range 20 {
		if err == nil || !strings.Contains(err.Error(), "service "+o.Service+": not found") {
			break
		}
		err = try()
	}
	return err
}

// message makes the value to send: a protobuf message if asked for, else the JSON itself.
func (o Options) message(text string) (any, error) {
	if o.Proto {
		return protoRequest(o.Endpoint, text)
	}
	raw := json.RawMessage(text)
	if !json.Valid(raw) {
		return nil, fmt.Errorf("%q is not JSON", text)
	}
	return &raw, nil
}

func (o Options) reply() any {
	if o.Proto {
		return protoReply(o.Endpoint)
	}
	return &json.RawMessage{}
}

// printable turns a reply into what the JSON line carries.
func printable(reply any) any {
	switch value := reply.(type) {
	case *json.RawMessage:
		if len(*value) == 0 {
			return nil
		}
		return value
	default:
		return protoJSON(value)
	}
}

func failure(engine Engine, err error) map[string]any {
	return map[string]any{"ok": false, "error": engine.ParseError(err.Error()), "text": err.Error()}
}

func (o Options) context(engine Engine) context.Context {
	if len(o.Metadata) == 0 {
		return context.Background()
	}
	return engine.Context(context.Background(), o.Metadata)
}

// call makes the call --times times, one after another, in each of --parallel goroutines, on one client and so on
// one pool.
func call(engine Engine, o Options) error {
	ends := make(chan error)
	for range o.Parallel {
		go func() { ends <- callInTurn(engine, o) }()
	}
	for range o.Parallel {
		if err := <-ends; err != nil {
			return err
		}
	}
	return nil
}

func callInTurn(engine Engine, o Options) error {
	for range o.Times {
		request, err := o.message(o.JSON)
		if err != nil {
			return err
		}
		reply := o.reply()
		if err := found(o, func() error { return engine.Call(o.context(engine), request, reply) }); err != nil {
			Say(failure(engine, err))
			time.Sleep(o.SendEvery)
			continue
		}
		Say(map[string]any{"ok": true, "reply": printable(reply)})
		time.Sleep(o.SendEvery)
	}
	return nil
}

// stream does what Go's generated code does: opens with an empty request, then sends.
func stream(engine Engine, o Options) error {
	open, err := o.message(o.Open)
	if err != nil {
		return err
	}
	var s ClientStream
	err = found(o, func() (err error) { s, err = engine.Stream(o.context(engine), open); return err })
	if err != nil {
		object := failure(engine, err)
		object["end"] = true
		Say(object)
		return nil
	}
	var closed sync.Once
	ended := make(chan struct{})
	finish := func() { closed.Do(func() { close(ended); _ = s.Close() }) }
	defer finish()
	if o.SendEvery > 0 {
		go sendAll(s, o)
	} else { // as generated code does; v1 cannot send while it waits for an item
		sendAll(s, o)
	}
	received := 0
	for {
		if received == o.AbortAfter {
			os.Exit(3)
		}
		if received == o.CloseAfter {
			finish()
			Say(map[string]any{"end": true, "closed": true})
			return nil
		}
		item := o.reply()
		if err := s.Recv(item); err == io.EOF {
			Say(map[string]any{"end": true})
			return nil
		} else if err != nil {
			object := failure(engine, err)
			object["end"] = true
			delete(object, "ok")
			Say(object)
			return nil
		}
		received++
		Say(map[string]any{"item": printable(item)})
	}
}

func sendAll(s ClientStream, o Options) {
	for range o.Count {
		for _, text := range o.Sends {
			item, err := o.message(text)
			if err == nil {
				err = s.Send(item)
			}
			if err != nil {
				Say(map[string]any{"event": "unsent", "text": err.Error()})
				return
			}
			time.Sleep(o.SendEvery)
		}
	}
}

// publish waits before it ends, since the http broker delivers after Publish has returned.
func publish(engine Engine, o Options) error {
	for range o.Times {
		payload, err := o.message(o.JSON)
		if err != nil {
			return err
		}
		if err := engine.Publish(o.context(engine), payload); err != nil {
			Say(failure(engine, err))
			return nil
		}
	}
	time.Sleep(o.Linger)
	Say(map[string]any{"ok": true})
	return nil
}

func subscribe(engine Engine) error {
	address, id, stop, err := engine.Subscribe(Delivered)
	if err != nil {
		return err
	}
	ready(map[string]any{"event": "ready", "address": address, "id": id})
	return stop()
}

// Delivered prints an event; its body is JSON if it can be, else text.
func Delivered(topic string, header map[string]string, body []byte) {
	var shown any = string(body)
	if json.Valid(body) {
		shown = json.RawMessage(body)
	}
	Say(map[string]any{"event": "message", "topic": topic, "header": header, "body": shown})
}

func registry(engine Engine, o Options, action, name string) error {
	r := engine.Registry()
	switch action {
	case "get":
		services, _, err := r.Get(name)
		if err != nil {
			Say(map[string]any{"ok": false, "text": err.Error()})
			return nil
		}
		Say(map[string]any{"ok": true, "services": services})
	case "list":
		services, err := r.List()
		if err != nil {
			Say(map[string]any{"ok": false, "text": err.Error()})
			return nil
		}
		Say(map[string]any{"ok": true, "services": services})
	case "watch":
		go func() {
			err := r.Watch(name, func(action string, service any) {
				Say(map[string]any{"event": "change", "action": action, "service": service})
			})
			Say(map[string]any{"event": "unwatched", "text": fmt.Sprint(err)})
		}()
		time.Sleep(200 * time.Millisecond) // the watcher tells nobody when it listens
		ready(map[string]any{"event": "ready"})
	case "hold":
		stop, err := r.Register(name, o.Version, o.ID, o.Address, o.Metadata)
		if err != nil {
			return err
		}
		if err := visible(r, name, o.ID); err != nil {
			return err
		}
		ready(map[string]any{"event": "ready", "address": o.Address, "id": o.ID})
		return stop()
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	return nil
}
