package peer

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"shoal.test/peer/greeterpb"
)

// Stream is the part of a server stream that every version has.
type Stream interface {
	Send(any) error
	Recv(any) error
	Close() error
}

// Greeter is embedded by a type of that name in each version, since handlers must take that version's stream type.
type Greeter[S Stream] struct {
	// NewError makes a Go Micro error.
	NewError func(id, detail string, code int32) error
	// Metadata reads the metadata of a handler's context.
	Metadata func(context.Context) map[string]string
}

type HelloRequest struct {
	Name string `json:"name"`
}

type HelloReply struct {
	Greeting string `json:"greeting"`
}

type FailRequest struct {
	ID     string `json:"id"`
	Code   int32  `json:"code"`
	Detail string `json:"detail"`
}

type PlainRequest struct {
	Text string `json:"text"`
}

type SlowRequest struct {
	Milliseconds int64 `json:"ms"`
}

type SlowReply struct {
	DeadlineMilliseconds int64 `json:"deadline_ms"`
	Slept                bool  `json:"slept"`
}

type MetaReply struct {
	Header map[string]string `json:"header"`
}

type CountRequest struct {
	N     int  `json:"n"`
	Burst bool `json:"burst"`
}

type CountReply struct {
	I int `json:"i"`
}

type SumRequest struct {
	N            int   `json:"n"`
	Last         bool  `json:"last"`
	Milliseconds int64 `json:"ms"`
}

type SumReply struct {
	Total int `json:"total"`
}

type AbortRequest struct {
	Exit bool `json:"exit"`
}

type Empty struct{}

// Hello greets.
func (g *Greeter[S]) Hello(ctx context.Context, request *HelloRequest, reply *HelloReply) error {
	reply.Greeting = "Hello " + request.Name
	return nil
}

// Fail returns the Go Micro error it is asked for.
func (g *Greeter[S]) Fail(ctx context.Context, request *FailRequest, reply *Empty) error {
	return g.NewError(request.ID, request.Detail, request.Code)
}

// Plain returns an error that is only text.
func (g *Greeter[S]) Plain(ctx context.Context, request *PlainRequest, reply *Empty) error {
	return errors.New(request.Text)
}

// Slow sleeps unless its context ends first, and says what deadline it was given (-1 for none).
func (g *Greeter[S]) Slow(ctx context.Context, request *SlowRequest, reply *SlowReply) error {
	reply.DeadlineMilliseconds = -1
	if deadline, ok := ctx.Deadline(); ok {
		reply.DeadlineMilliseconds = time.Until(deadline).Milliseconds()
	}
	select {
	case <-time.After(time.Duration(request.Milliseconds) * time.Millisecond):
		reply.Slept = true
	case <-ctx.Done():
		Say(map[string]any{"event": "cancelled", "endpoint": "Greeter.Slow", "text": ctx.Err().Error()})
	}
	return nil
}

// Meta returns the metadata it was called with.
func (g *Greeter[S]) Meta(ctx context.Context, request *Empty, reply *MetaReply) error {
	reply.Header = g.Metadata(ctx)
	return nil
}

// pause keeps the items of a stream apart: Go Micro's servers queue an item without copying it and reuse its
// memory for the next, so that of several sent at once all may carry the last one's bytes.
const pause = 5 * time.Millisecond

// Count streams as many items as its one request asks for; in a burst items overwrite each other, see pause.
func (g *Greeter[S]) Count(ctx context.Context, stream S) error {
	var request CountRequest
	if err := stream.Recv(&request); err != nil {
		return err
	}
	for i := range request.N {
		if err := stream.Send(&CountReply{I: i}); err != nil {
			Say(map[string]any{"event": "unsent", "endpoint": "Greeter.Count", "text": err.Error()})
			return err
		}
		if !request.Burst {
			time.Sleep(pause)
		}
	}
	return nil
}

// Chat answers each item until the caller ends.
func (g *Greeter[S]) Chat(ctx context.Context, stream S) error {
	for {
		var request HelloRequest
		if err := stream.Recv(&request); err == io.EOF {
			Say(map[string]any{"event": "ended", "endpoint": "Greeter.Chat"})
			return nil
		} else if err != nil {
			Say(map[string]any{"event": "ended", "endpoint": "Greeter.Chat", "text": err.Error()})
			return err
		}
		if err := stream.Send(&HelloReply{Greeting: "Hello " + request.Name}); err != nil {
			return err
		}
		time.Sleep(pause)
	}
}

// Sum adds until an item says it is the last, since a Go caller cannot end only its own direction.
func (g *Greeter[S]) Sum(ctx context.Context, stream S) error {
	total := 0
	for {
		var request SumRequest
		if err := stream.Recv(&request); err == io.EOF {
			Say(map[string]any{"event": "ended", "endpoint": "Greeter.Sum", "total": total})
			return nil
		} else if err != nil {
			return err
		}
		total += request.N
		if request.Last {
			return stream.Send(&SumReply{Total: total})
		}
	}
}

// Total adds until the caller ends its direction, then replies: possible for callers that keep the connection open.
// The last item's milliseconds pass before the reply.
func (g *Greeter[S]) Total(ctx context.Context, stream S) error {
	total, wait := 0, int64(0)
	for {
		var request SumRequest
		if err := stream.Recv(&request); err == io.EOF {
			time.Sleep(time.Duration(wait) * time.Millisecond)
			return stream.Send(&SumReply{Total: total})
		} else if err != nil {
			return err
		}
		total, wait = total+request.N, request.Milliseconds
	}
}

// StreamFail sends one item, then fails.
func (g *Greeter[S]) StreamFail(ctx context.Context, stream S) error {
	var request FailRequest
	if err := stream.Recv(&request); err != nil {
		return err
	}
	if err := stream.Send(&CountReply{}); err != nil {
		return err
	}
	return g.NewError(request.ID, request.Detail, request.Code)
}

// Abort sends one item, then cuts the caller's connection, or the whole process if asked to.
func (g *Greeter[S]) Abort(ctx context.Context, stream S) error {
	var request AbortRequest
	if err := stream.Recv(&request); err != nil {
		return err
	}
	if err := stream.Send(&CountReply{}); err != nil {
		return err
	}
	time.Sleep(10 * pause) // the item is sent by another goroutine
	if request.Exit {
		os.Exit(1)
	}
	cut(g.Metadata(ctx)["Remote"])
	return nil
}

// Proto is embedded like Greeter; its messages are protobuf.
type Proto[S Stream] struct{}

// Hello greets and returns what it was sent.
func (p *Proto[S]) Hello(ctx context.Context, request *greeterpb.HelloRequest, reply *greeterpb.HelloReply) error {
	reply.Greeting = "Hello " + request.GetName()
	reply.Request = request
	return nil
}

// Count streams as many items as its one request asks for.
func (p *Proto[S]) Count(ctx context.Context, stream S) error {
	var request greeterpb.CountRequest
	if err := stream.Recv(&request); err != nil {
		return err
	}
	for i := range request.GetN() {
		if err := stream.Send(&greeterpb.CountReply{I: i}); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	return nil
}

// Subscriber is the handler of serve --subscribe: typed like a user's, with the JSON kept as it came.
func Subscriber(o Options, metadata func(context.Context) map[string]string) any {
	if o.Proto {
		return func(ctx context.Context, event *greeterpb.HelloRequest) error {
			Delivered(o.Topic, metadata(ctx), protoJSON(event))
			return nil
		}
	}
	return func(ctx context.Context, event *json.RawMessage) error {
		Delivered(o.Topic, metadata(ctx), *event)
		return nil
	}
}
