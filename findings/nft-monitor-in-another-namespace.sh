#!/bin/bash
# `nft monitor` in one network namespace slows transactions of nf_tables in every other one.
#
# Seen with: nftables 1.0.6-2+deb12u2 on Linux 6.18. The kernel counts listeners for a netlink protocol
# on the whole machine (`nl_table` in net/netlink/af_netlink.c), and nf_tables makes a message for each
# element of a transaction as soon as there is one (`nft_notify` and its kin in
# net/netfilter/nf_tables_api.c), although none of them reaches the other namespace.
# Expected by guess: a listener sees and costs its own namespace alone.
# Output seen:
#   without a listener 154 ms, with one in another namespace 221 ms, without again 147 ms: 1.47 times
#
# Needs root, apt, unshare and ip, and a machine where nothing else listens (no `nft monitor`, no
# causewayd, no firewalld). Exits 1 if less than 1.15 times is seen, or the listener hears of it.
set -euo pipefail
if [ "${1-}" != inside ]; then
  self=$(readlink -f "$0")
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  cd "$work"
  apt-get -o APT::Sandbox::User=root download -q nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2 \
    libmnl0=1.0.4-3 libjansson4=2.14-2 >/dev/null
  for package in *.deb; do dpkg-deb -x "$package" "$work/root"; done
  unshare --net --mount --propagation private "$self" inside "$work"
  exit
fi

work=$2
nft=$work/root/usr/sbin/nft
export LD_LIBRARY_PATH=$work/root/usr/lib/$(uname -m)-linux-gnu
"$nft" --version
uname -r
mount -t tmpfs none /run
mkdir /run/netns
ip netns add other
awk 'BEGIN {
  print "table ip t { set s { type ipv4_addr; elements = {"
  for (i = 0; i < 60000; i++) printf "10.%d.%d.%d,\n", i / 65536, i / 256 % 256, i % 256
  print "} }\n}"
}' >"$work/set.nft"

# Milliseconds of the quickest of nine loads.
quickest() {
  local best=999999 start took _
  for _ in $(seq 9); do
    start=$(date +%s%N)
    "$nft" -f "$work/set.nft"
    took=$((($(date +%s%N) - start) / 1000000))
    "$nft" delete table ip t
    [ "$took" -ge "$best" ] || best=$took
  done
  echo "$best"
}

quickest >/dev/null
before=$(quickest)
ip netns exec other stdbuf -oL "$nft" monitor >"$work/heard" 2>&1 &
listener=$!
trap 'kill $listener 2>/dev/null || true' EXIT
# Until it is subscribed it hears nothing of its own namespace.
for _ in $(seq 100); do
  ip netns exec other "$nft" 'add table ip seen; delete table ip seen'
  [ ! -s "$work/heard" ] || break
done
[ -s "$work/heard" ] || { echo "the listener hears nothing" >&2; exit 1; }
with=$(quickest)
kill $listener
wait $listener 2>/dev/null || true
after=$(quickest)
heard=$(grep -c 'table ip t' "$work/heard" || true)
echo "without a listener $before ms, with one in another namespace $with ms, without again $after ms: $(awk "BEGIN { printf \"%.2f\", 2 * $with / ($before + $after) }") times"
[ "$heard" = 0 ] || { echo "the listener hears of the other namespace" >&2; exit 1; }
awk "BEGIN { exit !(2 * $with >= 1.15 * ($before + $after)) }" || { echo "a listener costs nothing elsewhere, or another one was there all the time, or the machine is busy" >&2; exit 1; }
