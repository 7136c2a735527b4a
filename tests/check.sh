#!/bin/bash
# What to run before each commit: format, lints, unit and property tests. Needs no root, no etcd, no
# Go; CONTRIBUTING.md lists what it needs. The last line says how long it took.
#
# The lints measure the size of functions (clippy.toml); tidy measures the tree: arrows between
# packages, circles of modules, charters, sizes of files.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { echo "== $*"; "$@"; }

step cargo fmt --all --check
step cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
# Property tests of the pure packages are programs of their own.
properties=()
for file in proxy/model/tests/*.rs proxy/ruleset/tests/documents.rs; do
  name=${file##*/}
  properties+=(--test "${name%.rs}")
done
step cargo test --workspace --locked --quiet --lib --bins "${properties[@]}"
# What tidy reads in the tree itself; three of its tests ask the built programs.
step cargo test --workspace --locked --quiet --test tidy -- \
  --skip every_configuration --skip every_command --skip every_flag
echo "checked in $((SECONDS / 60)) min $((SECONDS % 60)) s"
