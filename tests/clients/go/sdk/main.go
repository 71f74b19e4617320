// Sdk goes through all that OpenFaaS's own Go client (github.com/openfaas/go-sdk) does with a gateway, and checks
// each answer as that client reads it. One line a check; the first difference ends it with status 1.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"

	sdk "github.com/openfaas/go-sdk"
)

// session is a client, and the image of the functions it deploys: one with a watchdog, cat, env and ls.
type session struct {
	*sdk.Client
	context.Context
	image string
}

func main() {
	gateway := flag.String("gateway", "http://127.0.0.1:8080", "URL of the gateway")
	passwords := flag.String("password-file", "", "file with the password of admin")
	image := flag.String("image", "host", "image of the functions")
	async := flag.Bool("async", false, "also call a function asynchronously")
	flag.Parse()

	password, err := os.ReadFile(*passwords)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	location, err := url.Parse(*gateway)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	as := func(password string) session {
		who := &sdk.BasicAuth{Username: "admin", Password: password}
		return session{sdk.NewClient(location, who, nil), context.Background(), *image}
	}

	admin := as(strings.TrimSpace(string(password)))
	admin.info()
	admin.namespaces()
	admin.functions()
	admin.scaling()
	admin.secrets()
	admin.logs()
	admin.calls(*async)
	as("wrong").strangers()
}

// info is what the gateway says of itself. The client knows fewer fields than are sent.
func (s session) info() {
	info, err := s.GetInfo(s)
	done("info is read", err)
	for _, field := range [][2]string{
		{"provider", info.Provider.Provider},
		{"orchestration", info.Provider.Orchestration},
		{"provider's release", info.Provider.Version.Release},
		{"provider's sha", info.Provider.Version.SHA},
		{"release", info.Version.Release},
		{"sha", info.Version.SHA},
		{"arch", info.Arch},
	} {
		holds("info has "+field[0], field[1] != "", info)
	}
}
