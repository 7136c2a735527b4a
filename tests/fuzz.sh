#!/bin/bash
# Fuzzes one target for so many seconds: tests/fuzz.sh TARGET SECONDS, TARGET being manifest,
# nft-decode, api-json, api-body, store-record, cni-config or dns-query.
# Needs a nightly compiler and cargo-fuzz (cargo install cargo-fuzz). What is found stays in
# target/fuzz/artifacts; make a test of it before it is mended.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1 seconds=$2
corpus=target/fuzz/corpus/$target
mkdir -p "$corpus" target/fuzz/artifacts
case $target in
  manifest | api-json)
    for file in proxy/model/tests/bad/*.yaml tests/fuzz/seeds/*.{yaml,json}; do
      cp "$file" "$corpus/seed-$(basename "$file")"
    done ;;
  nft-decode)
    # Bytes that the kernel and nft were seen to send.
    grep -v '^#' proxy/nft/src/codec/captured.txt | while read -r name hex; do
      xxd -r -p <<< "$hex" > "$corpus/seed-$name"
    done ;;
  api-body)
    for file in tests/fuzz/seeds/*.json; do cp "$file" "$corpus/seed-$(basename "$file")"; done ;;
  store-record)
    cp tests/fuzz/seeds/*.records "$corpus" ;;
  dns-query)
    while read -r name hex; do xxd -r -p <<< "$hex" > "$corpus/seed-$name"; done < tests/fuzz/seeds/queries.hex ;;
  cni-config)
    for file in conf/*; do if [ -f "$file" ]; then cp "$file" "$corpus/seed-$(basename "$file")"; fi; done ;;
esac
# Without a sanitizer: there is no unsafe code in what is fuzzed. Panics, overflows and endless
# loops are findings all the same.
cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none \
  --debug-assertions "$target" "$corpus" -- -max_total_time="$seconds" -timeout=10 \
  -rss_limit_mb=2048 -artifact_prefix=target/fuzz/artifacts/ -print_final_stats=1 -verbosity=1
