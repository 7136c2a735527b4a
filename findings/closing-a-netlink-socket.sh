#!/bin/bash
# Closing the socket that deleted rules waits until the kernel has freed them.
#
# Seen with: nftables 1.0.6-2+deb12u2, strace 6.1 on Linux 6.18. nf_tables frees what a transaction deleted
# after a grace period, in the background. When a netlink socket of netfilter is closed, `nft_rcv_nl_event` in
# net/netfilter/nf_tables_api.c waits for that, so close(2), or the exit of the process, takes as long.
# One element costs a grace period of some 10 to 25 ms, very many cost seconds on a busy machine.
# Expected by guess: close of a socket returns at once; the deletion was answered before.
# Output seen (the times vary):
#   close after a list: 0.000007 s
#   close after a deletion of 1 element: 0.023373 s
#   close after a deletion of 160000 elements: 0.222316 s
#
# Needs root, apt, unshare. Exits 1 if one of the deletions does not make close at least ten times as long,
# and a millisecond longer.
set -euo pipefail
if [ "${1-}" != inside ]; then
  self=$(readlink -f "$0")
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  cd "$work"
  apt-get -o APT::Sandbox::User=root download -q nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 \
    libnftnl11=1.2.4-2 libmnl0=1.0.4-3 libjansson4=2.14-2 strace=6.1-0.1 libunwind8=1.6.2-3 >/dev/null
  for package in *.deb; do dpkg-deb -x "$package" "$work/root"; done
  unshare --net "$self" inside "$work"
  exit
fi

work=$2
PATH=$work/root/usr/sbin:$work/root/usr/bin:$PATH
export LD_LIBRARY_PATH=$work/root/usr/lib/$(uname -m)-linux-gnu
nft --version
strace --version | head -1
uname -r

# A table with a set of so many elements.
set_of() {
  awk -v n="$1" 'BEGIN {
    print "table ip t { set s { type ipv4_addr; elements = {"
    for (i = 0; i < n; i++) printf "10.%d.%d.%d,\n", i / 65536, i / 256 % 256, i % 256
    print "} }\n}"
  }' >"$work/set.nft"
  nft -f "$work/set.nft"
}
# Microseconds that the last close of a command took.
close_of() {
  strace -o "$work/trace" -T -e trace=close "$@" >/dev/null
  grep -o '<[0-9.]*>$' "$work/trace" | tail -1 | tr -d '<>.' | sed 's/^0*//;s/^$/0/'
}
show() { printf '%s: %d.%06d s\n' "$1" $(($2 / 1000000)) $(($2 % 1000000)); }

set_of 1
listed=$(close_of nft list tables)
show "close after a list" "$listed"
one=$(close_of nft delete table ip t)
show "close after a deletion of 1 element" "$one"
set_of 160000
many=$(close_of nft delete table ip t)
show "close after a deletion of 160000 elements" "$many"
for took in "$one" "$many"; do
  if [ "$took" -lt $((10 * listed + 1000)) ]; then
    echo "close does not wait for what was deleted" >&2
    exit 1
  fi
done
