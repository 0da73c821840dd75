// web is the smallest workload that shows a cluster working, and the client to ask it with.
//
//	web [--listen :8080]                 answer HTTP with who and where this is; /resolve?name=NAME with what NAME resolves to here
//	web get [--timeout 5s] URL           print what URL answers; exit 1 unless it is a success
//	web resolve [--timeout 5s] NAME      print the addresses that the system's resolver gives
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

var version = "dev" // stamped at link time

func main() {
	command, args := "serve", os.Args[1:]
	if len(args) > 0 && (args[0] == "get" || args[0] == "resolve") {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("web", flag.ExitOnError)
	listen := flags.String("listen", ":8080", "address to serve on")
	timeout := flags.Duration("timeout", 5*time.Second, "how long get and resolve may take")
	_ = flags.Parse(args)
	if asked := command != "serve"; flags.NArg() > 1 || asked != (flags.NArg() == 1) {
		fmt.Fprintln(os.Stderr, "usage: web [--listen :8080] | web get [--timeout 5s] URL | web resolve [--timeout 5s] NAME")
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch command {
	case "get", "resolve":
		limited, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		ask := map[string]func(context.Context, string) error{"get": get, "resolve": resolve}[command]
		err = ask(limited, flags.Arg(0))
	default:
		err = serve(ctx, *listen)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, address string) error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	routes.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hostname: %s\nclient: %s\npath: %s\nversion: %s\n", hostname, r.RemoteAddr, r.URL.Path, version)
	})
	routes.HandleFunc("/resolve", func(w http.ResponseWriter, r *http.Request) {
		addresses, err := net.DefaultResolver.LookupHost(r.Context(), r.URL.Query().Get("name"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintln(w, strings.Join(addresses, "\n"))
	})
	server := &http.Server{Addr: address, Handler: routes, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		last, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(last)
		return nil
	}
}

func get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}

func resolve(ctx context.Context, name string) error {
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
	return nil
}
