#!/bin/bash
# A minimal Debian 12 that has never seen this project, as root in namespaces of its own:
#
#   tests/fresh.sh check         installs exactly the packages that tests/programs.txt names, looks for
#                                its programs, and checks all crates, which runs their build scripts
#   tests/fresh.sh test [ARGS]   `make test` of a clone of HEAD; with ARGS `cargo test ARGS` of it
#   tests/fresh.sh demo          `make demo` of a clone of HEAD
#
# The host gives its Rust toolchain, the crates that it has downloaded, its name server, and what it
# needs itself to reach the registries: apt's settings, its own certificates, and the variables that
# name certificates, proxies and registries. KEEP=1 leaves the folder.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

# What decides how the registries are reached.
settings() {
  env -0 | grep -zE '^([A-Z_]*(CERT|_CA_|CAINFO|CAFILE)[A-Z_]*|[A-Za-z_]*_(PROXY|proxy)|PIP_[A-Z_]*|GO(PROXY|NOPROXY|SUMDB|NOSUMDB|FLAGS|PRIVATE|INSECURE)|CARGO_(HTTP|NET|REGISTR|SOURCE)[A-Za-z_]*|CI)=' || true
}

# Lines of sources.list: those that the host's apt reads Debian 12 from.
sources() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(ORIGIN) $(CODENAME) deb $(SITE) $(RELEASE) main' 2>/dev/null |
    awk '$1 == "Debian" && $2 ~ /^bookworm/ { $1 = $2 = ""; print substr($0, 3) }' | sort -u
}

make_root() {
  local root=$1 mirror file
  mirror=$(sources | awk '$3 == "bookworm" { print $2; exit }')
  # Without one debootstrap takes Debian's own.
  debootstrap --variant=minbase bookworm "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 ||
    { tail -n 20 "$root.log" >&2; exit 1; }
  if [ -n "$mirror" ]; then sources >"$root/etc/apt/sources.list"; fi
  apt-config dump | grep -E '^Acquire::(http|https|ftp|Check|Retries|Force)' \
    >"$root/etc/apt/apt.conf.d/99host" || true
  if [ -d /etc/apt/auth.conf.d ]; then cp -r /etc/apt/auth.conf.d "$root/etc/apt/"; fi
  for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
    if [ -e $file ]; then cp -L $file "$root$file"; fi
  done
  # The package ca-certificates adds these to its own.
  mkdir -p "$root/usr/local/share/ca-certificates"
  find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$root/usr/local/share/ca-certificates/" \; 2>/dev/null || true
  # A bundle that a variable names is there before that package is.
  settings | while IFS== read -rd '' _ file; do
    if [ -f "$file" ] && [ ! -e "$root$file" ]; then
      mkdir -p "$root$(dirname "$file")"
      cp -L "$file" "$root$file"
    fi
  done
  echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/fresh" # a folder that is removed needs no fsync
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no service starts in here
  chmod +x "$root/usr/sbin/policy-rc.d"
}

# Mounts what the inside needs and makes the folder the root of this mount namespace, where nothing
# of the host is left.
enter_root() {
  local root=$1 toolchain=$2 cargo=$3
  mount --bind "$root" "$root"
  mkdir -p "$root$toolchain" "$root/cargo/registry" "$root/old"
  mount --rbind /dev "$root/dev"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount -t tmpfs tmpfs "$root/run"
  mount --bind "$toolchain" "$root$toolchain"
  mount -o remount,bind,ro "$root$toolchain"
  mkdir -p "$cargo/registry"
  mount --bind "$cargo/registry" "$root/cargo/registry"
  if [ -e "$cargo/config.toml" ]; then cp "$cargo/config.toml" "$root/cargo/"; fi
  if [ -d /lib/modules ]; then
    mkdir -p "$root/lib/modules"
    mount --bind /lib/modules "$root/lib/modules"
  fi
  cd "$root"
  pivot_root . old
  umount -l /old
  rmdir /old
  cd /causeway
}

install_packages() {
  apt-get update -q
  apt-get install -y -q --no-install-recommends "$@"
}

# The packages of these sets.
packages() {
  local package its _
  while read -r package its _; do
    if [[ " $* " == *" $its "* ]]; then echo "$package"; fi
  done < <(grep -v '^#' tests/programs.txt)
}

check() {
  local names package its program missing=0
  mapfile -t names < <(packages demo test)
  echo "== the packages of tests/programs.txt, without what they recommend"
  install_packages "${names[@]}" >/dev/null
  echo "== their programs"
  while read -r package its names; do
    case $its in base | demo | test) ;; *) continue ;; esac
    for program in $names; do
      if ! command -v "${program%\*}" >/dev/null; then
        echo "tests/fresh.sh: $package has no ${program%\*}" >&2
        missing=1
      fi
    done
  done < <(grep -v '^#' tests/programs.txt)
  [ $missing = 0 ] || exit 1
  echo "== the crates, whose build scripts may start programs"
  cargo check --quiet --workspace --locked
}

inside() {
  local what=$1
  shift
  export DEBIAN_FRONTEND=noninteractive
  case $what in
    check) check ;;
    *)
      # What the README asks for beside Rust.
      install_packages make >/dev/null
      case $what:$# in
        test:0) exec make test ;;
        demo:0) exec make demo ;;
      esac
      make deps
      cargo build --workspace --bins --locked
      exec cargo test --locked "$@"
      ;;
  esac
}

case ${1-} in
  check | test | demo) ;;
  --enter)
    enter_root "$2" "$3" "$4"
    shift 4
    exec /bin/bash tests/fresh.sh --inside "$@"
    ;;
  --inside)
    shift
    inside "$@"
    exit
    ;;
  *)
    grep '^#   tests' "$0" >&2
    exit 2
    ;;
esac
if [ "$(id -u)" != 0 ]; then
  echo "tests/fresh.sh: must be run as root: sudo -E env PATH=\"\$PATH\" tests/fresh.sh $*" >&2
  exit 1
fi
tests/deps.sh fresh
mkdir -p target
root=$(mktemp -d "$PWD/target/fresh.XXXXXX")
chmod 755 "$root"
[ "${KEEP-}" = 1 ] || trap 'rm -rf --one-file-system "$root" "$root.log"' EXIT
echo "== a minimal Debian 12 in $root"
make_root "$root"
if [ "$1" = check ]; then
  mkdir "$root/causeway"
  git ls-files -z | xargs -0 cp --parents -t "$root/causeway"
else
  git clone -q . "$root/causeway"
fi
toolchain=$(rustc --print sysroot)
mapfile -d '' -t passed < <(settings)
env -i "${passed[@]}" HOME=/root TERM="${TERM-dumb}" LANG=C.UTF-8 CARGO_HOME=/cargo \
  PATH="$toolchain/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
  unshare --mount --pid --fork --kill-child --propagation private \
  "$PWD/tests/fresh.sh" --enter "$root" "$toolchain" "${CARGO_HOME:-$HOME/.cargo}" "$@"
