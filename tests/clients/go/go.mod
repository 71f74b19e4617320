module pinnace/tests/clients

go 1.24

require (
	github.com/openfaas/connector-sdk v0.8.0
	github.com/openfaas/faas-provider v0.25.8
	github.com/openfaas/go-sdk v0.2.22
)
