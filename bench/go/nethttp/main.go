// Command nethttp is Go's net/http on both sides with the headers of a Go Micro call, no framework.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"

	"shoal/bench/load"
)

// A Go Micro server answers with the headers it was asked with.
var echoed = []string{
	"Accept", "Content-Type", "Micro-Endpoint", "Micro-Id",
	"Micro-Method", "Micro-Service", "Timeout", "User-Agent",
}

func hello(w http.ResponseWriter, r *http.Request) {
	var request load.HelloRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	header := w.Header()
	for _, name := range echoed {
		header[name] = r.Header[name]
	}
	header["Date"] = nil
	_ = json.NewEncoder(w).Encode(load.HelloReply{Greeting: "Hello " + request.Name})
}

func serve() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	go func() { _ = http.Serve(listener, http.HandlerFunc(hello)) }()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func connect(port int) (load.Call, error) {
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 1024,
		DisableCompression:  true,
	}}
	var seq atomic.Int64
	return func(name string) (string, error) {
		var body bytes.Buffer
		if err := json.NewEncoder(&body).Encode(load.HelloRequest{Name: name}); err != nil {
			return "", err
		}
		request, err := http.NewRequest(http.MethodPost, url, &body)
		if err != nil {
			return "", err
		}
		request.Header = http.Header{
			"Accept":         {"application/json"},
			"Content-Type":   {"application/json"},
			"Micro-Endpoint": {"Greeter.Hello"},
			"Micro-Id":       {strconv.FormatInt(seq.Add(1)-1, 10)},
			"Micro-Method":   {"Greeter.Hello"},
			"Micro-Service":  {"greeter"},
			"Timeout":        {"5000000000"},
		}
		response, err := client.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		var reply load.HelloReply
		err = json.NewDecoder(response.Body).Decode(&reply)
		_, _ = io.Copy(io.Discard, response.Body) // or the connection is not used again
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d", response.StatusCode)
		}
		return reply.Greeting, err
	}, nil
}

func main() { load.Main(serve, connect) }
