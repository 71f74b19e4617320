# Builds the static program `handler` in this folder; with `dependencies`, only what it depends on, ahead of time.
set -eu

export CARGO_HOME="$PWD/cargo" CARGO_TARGET_DIR="$PWD/target"
PATH=$PATH:/usr/local/cargo/bin
if ! command -v cargo > /dev/null; then
  echo "there is no cargo below /usr: install it where the server runs (package cargo), or build with --builder docker" >&2
  exit 1
fi
host=$(rustc -vV | sed -n 's/^host: //p')
# A program of its own, for an image in which there is nothing else.
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=."

if [ "${1:-}" = dependencies ]; then
  mkdir -p function/src
  : > function/src/lib.rs
  cd function
  cargo build --release --target "$host"
  # The function itself is none of them; cargo would go by the times of its files, which builders change.
  cargo clean --release --target "$host" --package function
  exit
fi
# The versions are those of the handler.
[ ! -e function/Cargo.lock ] || cp function/Cargo.lock Cargo.lock
cargo build --release --target "$host"
cp "target/$host/release/handler" handler
