# Builds the static program `handler` in this folder; with `dependencies`, only what it depends on, ahead of time.
set -eu

export GOMODCACHE="$PWD/modules" GOCACHE="$PWD/cache" CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
PATH=$PATH:/usr/local/go/bin
if ! command -v go > /dev/null; then
  echo "there is no go below /usr: install it where the server runs (package golang-go), or build with --builder docker" >&2
  exit 1
fi

if [ "${1:-}" = dependencies ]; then
  cd function
  go mod download
  go build net/http os/signal
  exit
fi
go build -ldflags "-s -w" -o handler .
