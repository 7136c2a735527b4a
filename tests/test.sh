#!/bin/bash
# Every check of the project, in order of what fails fastest. The last line says what passed.
#
#   tests/test.sh              all of it
#   tests/test.sh NAME [PART]  one test program (bridge), one package (causeway-model), or the tests
#                              whose names contain NAME; of these only those whose names contain PART
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/target/tools/bin:$PATH
step() { echo "== $*"; "$@"; }

which=(--workspace)
if [ $# = 0 ]; then
  step cargo fmt --all --check
  # No `advisories`: their database is a git repository, and a test run needs no network beyond the
  # package registry.
  step cargo-deny --locked --log-level error check bans licenses sources
  step cargo clippy --workspace --all-targets --locked -- -D warnings
  RUSTDOCFLAGS=-Dwarnings step cargo doc --workspace --no-deps --document-private-items --locked
else
  for folder in tests ipam plugins/* proxy/*; do
    if [ -e "$folder/tests/$1.rs" ] || [ -e "$folder/tests/$1/main.rs" ]; then
      which=(--workspace --test "$1")
    elif grep -qsx "name = \"$1\"" "$folder/Cargo.toml"; then
      which=(--package "$1")
    fi
  done
  if [ "${which[*]}" != --workspace ]; then shift; fi
fi
# The scenarios run the programs; `cargo test` alone would not build them.
step cargo build --workspace --bins --locked

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
step cargo test "${which[@]}" --locked --no-fail-fast ${*:+-- "$@"} 2>&1 | tee "$log" || status=$?
totals=$(awk '/^test result: / { passed += $4; failed += $6; ignored += $8; filtered += $12 }
  END { print passed + 0, failed + 0, ignored + 0, filtered + 0 }' "$log")
read -r passed failed ignored filtered <<<"$totals"
if [ "$ignored" != 0 ] || { [ $# = 0 ] && [ "$filtered" != 0 ]; }; then
  echo "tests were left out: $ignored ignored, $filtered filtered out" >&2
  status=1
fi
if [ "$passed" = 0 ]; then
  echo "no test ran" >&2
  status=1
fi
# A test binary that dies prints no result line, so the exit status decides.
[ "$status" = 0 ] || echo "make test: not everything passed; see above" >&2
echo "$passed passed, $failed failed"
exit "$status"
