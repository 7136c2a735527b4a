#!/bin/bash
# The first filter of a link that is up costs packets: the kernel stops the link's transmit queues while
# it puts clsact there, and while it takes that away, and drops what is sent meanwhile.
#
# Seen with: iproute2 6.1.0-3 on Linux 6.18. A qdisc of the ingress side hangs beside the transmit queues,
# yet `qdisc_graft` in net/sched/sch_api.c deactivates the whole device around every change at its top,
# and waits for a grace period in between.
# Expected by guess: what looks at incoming packets alone disturbs none that go out.
# Output seen (lost and dropped vary; of filters alone none is ever lost):
#   clsact 20 times there and away: lost 20 of 1500, dropped by the link 20
#   a filter in a clsact that stays, 20 times there and away: lost 0 of 1500, dropped by the link 0
#
# Needs root, apt, unshare. Exits 1 if changes of clsact lose nothing, or changes of a filter do.
set -euo pipefail
if [ "${1-}" != inside ]; then
  self=$(readlink -f "$0")
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  cd "$work"
  apt-get -o APT::Sandbox::User=root download -q iproute2=6.1.0-3 libbpf1=1:1.1.2-0+deb12u1 iputils-ping=3:20221126-1+deb12u1 >/dev/null
  for package in *.deb; do dpkg-deb -x "$package" "$work/root"; done
  unshare --net --mount --propagation private "$self" inside "$work"
  exit
fi

root=$2/root
PATH=$root/sbin:$root/bin:$PATH
export LD_LIBRARY_PATH=$root/usr/lib/$(uname -m)-linux-gnu
tc -V
uname -r
mount -t tmpfs none /run
mkdir /run/netns
ip netns add other
ip link add here type veth peer name there netns other
ip addr add 10.9.0.1/24 dev here
ip link set here up
ip -n other addr add 10.9.0.2/24 dev there
ip -n other link set there up
ping -q -c 1 -W 5 10.9.0.2 >/dev/null

# Requests and dropped packets that are lost while the function runs 20 times.
lost() {
  local before after pings _
  before=$(ip -s -j link show here | grep -o '"tx":{[^}]*' | grep -o '"dropped":[0-9]*' | cut -d: -f2)
  ping -q -i 0.002 -c 1500 10.9.0.2 >"$1.pings" &
  pings=$!
  for _ in $(seq 20); do "$1"; done
  wait $pings || true
  after=$(ip -s -j link show here | grep -o '"tx":{[^}]*' | grep -o '"dropped":[0-9]*' | cut -d: -f2)
  received=$(grep -o '[0-9]* received' "$1.pings" | cut -d' ' -f1)
  echo "$((1500 - received)) of 1500, dropped by the link $((after - before))"
}
holder() {
  tc qdisc add dev here clsact
  tc qdisc del dev here clsact
}
filter() {
  tc filter add dev here ingress pref 7 bpf da bytecode '1,6 0 0 4294967295'
  tc filter del dev here ingress pref 7
}

cd "$2"
holders=$(lost holder)
echo "clsact 20 times there and away: lost $holders"
tc qdisc add dev here clsact
filters=$(lost filter)
echo "a filter in a clsact that stays, 20 times there and away: lost $filters"
[ "${holders%% *}" -gt 0 ] || { echo "changes of clsact lose nothing" >&2; exit 1; }
[ "$filters" = "0 of 1500, dropped by the link 0" ] || { echo "a filter loses packets" >&2; exit 1; }
