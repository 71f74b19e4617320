module pinnace/tests/clients

go 1.24

require (
	github.com/openfaas/connector-sdk v0.8.0
	github.com/openfaas/faas-provider v0.25.8
	github.com/openfaas/go-sdk v0.2.22
)

require (
	github.com/alexellis/hmac/v2 v2.0.0 // indirect
	golang.org/x/crypto v0.39.0 // indirect
	golang.org/x/sys v0.33.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
