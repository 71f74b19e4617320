// Connector is a connector as users write one with OpenFaaS's own kit (github.com/openfaas/connector-sdk). Each line
// of its input is a topic and a message for the functions that ask for the topic; it prints one answer a line, in the
// order of the messages. A line "await TOPICS" waits until exactly these topics are asked for.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/openfaas/connector-sdk/types"
	sdk "github.com/openfaas/go-sdk"
)

const (
	// How often the kit asks which functions there are.
	interval = 100 * time.Millisecond
	// How long a call may take, and a topic to be asked for or no longer.
	patience = 30 * time.Second
)

// printer prints answers: status, topic, function, body.
type printer struct{}

func (printer) Response(answer types.InvokerResponse) {
	if answer.Error != nil {
		fmt.Println("error", answer.Error)
		return
	}
	fmt.Println(answer.Status, answer.Topic, answer.Function, string(*answer.Body))
}

func main() {
	gateway := flag.String("gateway", "http://127.0.0.1:8080", "URL of the gateway")
	passwords := flag.String("password-file", "", "file with the password of admin")
	flag.Parse()
	password, err := os.ReadFile(*passwords)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}

	who := &sdk.BasicAuth{Username: "admin", Password: strings.TrimSpace(string(password))}
	controller := types.NewController(who, &types.ControllerConfig{
		GatewayURL:               *gateway,
		UpstreamTimeout:          patience,
		RebuildInterval:          interval,
		TopicAnnotationDelimiter: ",",
		ContentType:              "text/plain",
	})
	controller.Subscribe(printer{})
	controller.BeginMapBuilder()

	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		topic, text, _ := strings.Cut(input.Text(), " ")
		if topic == "await" {
			await(controller, strings.Fields(text))
			continue
		}
		message := []byte(text)
		controller.Invoke(topic, &message, nil)
	}
}

// await waits until exactly these topics are asked for.
func await(controller types.Controller, wanted []string) {
	slices.Sort(wanted)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(interval / 10) {
		topics := controller.Topics()
		slices.Sort(topics)
		if slices.Equal(topics, wanted) {
			return
		}
	}
	fmt.Println("topics are", controller.Topics(), "and not", wanted)
	os.Exit(1)
}
