// Package load is the call every peer makes, and the loops that serve and time it.
package load

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const warmUp = 500 * time.Millisecond

// HelloRequest is what is asked.
type HelloRequest struct {
	Name string `json:"name"`
}

// HelloReply is what is answered.
type HelloReply struct {
	Greeting string `json:"greeting"`
}

// Call makes one call with a name and returns the greeting.
type Call func(name string) (string, error)

// Main runs a peer, on one processor, as the command line says. Serve returns the port it listens
// on and goes on in the background; connect returns the call to make.
func Main(serve func() (int, error), connect func(port int) (Call, error)) {
	runtime.GOMAXPROCS(1)
	body := flag.Int("body", 10, "characters of the name")
	flag.Parse()
	switch args := flag.Args(); {
	case len(args) == 1 && args[0] == "server":
		port, err := serve()
		exitOn(err)
		fmt.Println(port)
		_, _ = io.Copy(io.Discard, os.Stdin) // whoever started this process closes it
	case len(args) == 4 && args[0] == "client":
		port, err := strconv.Atoi(args[1])
		exitOn(err)
		concurrency, err := strconv.Atoi(args[2])
		exitOn(err)
		seconds, err := strconv.ParseFloat(args[3], 64)
		exitOn(err)
		call, err := connect(port)
		exitOn(err)
		name := strings.Repeat("John Smith", *body/10+1)[:*body]
		client(call, name, concurrency, time.Duration(seconds*float64(time.Second)))
	default:
		exitOn(fmt.Errorf("usage: server | client PORT CONCURRENCY SECONDS"))
	}
}

func client(call Call, name string, concurrency int, duration time.Duration) {
	greeting, err := call(name)
	exitOn(err)
	if greeting != "Hello "+name {
		exitOn(fmt.Errorf("wrong greeting: %q", greeting))
	}
	warm := calls(call, name, concurrency, warmUp)
	cpu, start := processTime(), time.Now()
	latencies := calls(call, name, concurrency, duration)
	elapsed, used := time.Since(start), processTime()-cpu
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	count := len(latencies)
	exitOn(json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"rps":           float64(count) / elapsed.Seconds(),
		"p50_us":        float64(latencies[count/2].Nanoseconds()) / 1e3,
		"p99_us":        float64(latencies[count*99/100].Nanoseconds()) / 1e3,
		"client_cpu_us": float64(used.Nanoseconds()) / 1e3 / float64(count),
		"calls_made":    float64(count + len(warm) + 1),
	}))
}

func calls(call Call, name string, concurrency int, duration time.Duration) []time.Duration {
	var group sync.WaitGroup
	each := make([][]time.Duration, concurrency)
	until := time.Now().Add(duration)
	for i := range each {
		group.Add(1)
		go func() {
			defer group.Done()
			for start := time.Now(); start.Before(until); {
				_, err := call(name)
				exitOn(err)
				end := time.Now()
				each[i] = append(each[i], end.Sub(start))
				start = end
			}
		}()
	}
	group.Wait()
	var all []time.Duration
	for _, latencies := range each {
		all = append(all, latencies...)
	}
	return all
}

func processTime() time.Duration {
	var usage syscall.Rusage
	exitOn(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
