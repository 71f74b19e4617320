// Builder asks a gateway for a build as OpenFaaS's own library does: it makes the archive, signs it, seals a secret for
// it and follows the log. It prints the log, and ends with status 1 unless the image is there.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/openfaas/go-sdk/builder"
)

func main() {
	gateway := flag.String("gateway", "http://127.0.0.1:8080", "URL of the gateway")
	_ = flag.String("password-file", "", "not used: the signature is enough")
	secret := flag.String("payload-secret", "", "file with the secret that requests are signed with")
	context := flag.String("context", "", "directory of the source")
	image := flag.String("image", "", "name of the image")
	flag.Parse()
	if err := build(*gateway, *secret, *context, *image); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func build(gateway, secretFile, context, image string) error {
	secret, err := os.ReadFile(secretFile)
	if err != nil {
		return err
	}
	location, err := url.Parse(gateway)
	if err != nil {
		return err
	}
	key, err := publicKey(gateway)
	if err != nil {
		return err
	}
	archive := filepath.Join(os.TempDir(), fmt.Sprintf("build-%d.tar", os.Getpid()))
	defer os.Remove(archive)
	config := builder.BuildConfig{Image: image, BuildArgs: map[string]string{"GIVEN": "argument"}}
	if err := builder.MakeTar(archive, context, &config); err != nil {
		return err
	}
	client := builder.NewFunctionBuilder(location, http.DefaultClient,
		builder.WithHmacAuth(strings.TrimSpace(string(secret))), builder.WithBuildSecretsKey([]byte(key)))
	stream, err := client.BuildWithSecretsStream(archive, map[string]string{"token": "sealed-value"})
	if err != nil {
		return err
	}
	status := ""
	for result, err := range stream.Results() {
		if err != nil {
			return err
		}
		for _, line := range result.Log {
			fmt.Println(line)
		}
		if result.Error != "" {
			return fmt.Errorf("%s: %s", result.Status, result.Error)
		}
		status = result.Status
	}
	if status != builder.BuildSuccess {
		return fmt.Errorf("the build ended as %q", status)
	}
	return nil
}

func publicKey(gateway string) (string, error) {
	answer, err := http.Get(gateway + "/publickey")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var key struct {
		PublicKey string `json:"public_key"`
	}
	err = json.NewDecoder(answer.Body).Decode(&key)
	return key.PublicKey, err
}
