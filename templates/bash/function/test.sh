#!/usr/bin/env bash
# Greets whoever is named.
set -euo pipefail
cd "$(dirname "$0")"

answer=$(printf Ada | bash handler.sh)
if [ "$answer" != "Hello, Ada!" ]; then
  echo "wrong: $answer" >&2
  exit 1
fi
echo ok
