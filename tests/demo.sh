#!/bin/bash
# The demo: the tutorials on two nodes; all in namespaces that vanish with it.
#
# `make demo` builds what it needs and calls this. It enters fresh network, mount and process
# namespaces first: nothing of it touches the host, whatever happens, and an ordinary user can run it.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${CAUSEWAY_BIN:?the folder of our programs}
tools=${CAUSEWAY_TOOLS:?the folder of cnitool}

if [ "${CAUSEWAY_DEMO_INSIDE:-}" != yes ]; then
  CAUSEWAY_DEMO_INSIDE=yes exec "$here/tests/enter" --enter "$0"
fi
# The first process of the pid namespace: when it ends, everything it started ends.

bold=$'\e[1m' plain=$'\e[0m'
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then bold='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
line() { printf '  %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

quiet() { "$@" >/dev/null || fail "failed: $*"; }

mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/causeway

# A host: a network and a mount namespace, with /run/causeway and /var/lib of its own. A process
# holds the mount namespace; it says when it is ready.
declare -A holder=()
host() {
  local fd
  exec {fd}< <(exec unshare --mount --propagation private sh -c '
    mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/cni && mount -t tmpfs tmpfs /run/causeway &&
      echo $$ && exec sleep infinity')
  read -r "holder[$1]" <&"$fd" || fail "no mount namespace for $1"
}
on() { local h=$1; shift; nsenter --net="/run/netns/$h" --mount="/proc/${holder[$h]}/ns/mnt" -- "$@"; }
wire() { # HOST ADDRESS: a port of the switch
  ip link add eth0 netns "$1" type veth peer name "p-$1" netns switch
  ip -n switch link set "p-$1" master underlay up
  ip -n "$1" addr add "$2" dev eth0
  ip -n "$1" link set eth0 up
}

say "Two nodes, a router and a host on the internet, all of them network namespaces"
hosts=(switch node1 node2 store router internet) pods=(pod1 pod2 pod3 pod4)
# All network namespaces come first: a mount namespace sees those that were there when it began.
for ns in "${hosts[@]}" "${pods[@]}"; do ip netns add "$ns"; ip -n "$ns" link set lo up; done
for h in "${hosts[@]}"; do host "$h"; done
ip -n switch link add underlay type bridge mcast_snooping 0
ip -n switch link set underlay up
wire node1 172.18.0.2/24
wire node2 172.18.0.3/24
wire store 172.18.0.10/24
wire router 172.18.0.1/24
ip link add eth1 netns router type veth peer name eth0 netns internet
ip -n router addr add 198.51.100.1/24 dev eth1; ip -n router link set eth1 up
ip -n internet addr add 198.51.100.10/24 dev eth0; ip -n internet link set eth0 up
ip -n internet route add default via 198.51.100.1
on router sysctl -qw net.ipv4.ip_forward=1
for n in node1 node2; do ip -n $n route add default via 172.18.0.1; done
line "node1 is 172.18.0.2, node2 is 172.18.0.3, the host on the internet is 198.51.100.10"

cni() { # NODE VERB POD: one call of cnitool with the network of conf/
  local node=$1 verb=$2 pod=$3
  on "$node" env CNI_PATH="$bin" NETCONFPATH="/run/conf-$node" CAP_ARGS="${CAP_ARGS:-}" \
    CNI_ARGS="${CNI_ARGS:-}" CNI_IFNAME=eth0 "$tools/cnitool" "$verb" causeway "/run/netns/$pod"
}
declare -A node_of=([pod1]=node1 [pod2]=node1 [pod3]=node2 [pod4]=node2)
declare -A addr=()
for n in node1 node2; do
  mkdir -p "/run/conf-$n"
  cp "$here/conf/20-causeway-vxlan-$n.conflist" "/run/conf-$n/"
done

say "Attach four containers, two per node, with cnitool"
for pod in "${pods[@]}"; do
  CAP_ARGS=''
  [ "$pod" != pod1 ] || CAP_ARGS='{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}'
  started=$(date +%s%N)
  result=$(CNI_ARGS='CAUSEWAY_LABELS=app:cs-pod' cni "${node_of[$pod]}" add "$pod")
  took=$(( ($(date +%s%N) - started) / 1000 ))
  addr[$pod]=$(jq -r '.ips[0].address' <<<"$result")
  line "$pod on ${node_of[$pod]} has ${addr[$pod]} after $((took/1000)) ms"
done
[ "${addr[pod1]} ${addr[pod2]} ${addr[pod3]} ${addr[pod4]}" = "10.0.1.2/16 10.0.1.3/16 10.0.2.2/16 10.0.2.3/16" ] ||
  fail "addresses are ${addr[pod1]} ${addr[pod2]} ${addr[pod3]} ${addr[pod4]}"

say "Every container pings every other one, across both nodes"
for from in "${pods[@]}"; do
  for to in "${pods[@]}"; do
    [ "$from" != "$to" ] || continue
    reply=$(ip netns exec "$from" ping -n -c1 -W2 "${addr[$to]%/*}") || fail "$from does not reach $to: $reply"
  done
done
line "12 of 12 pings are answered"

say "Containers reach the internet with the address of their node"
serve() { # NAMESPACE PORT: a web server in it; returns when it listens
  local fd ready
  exec {fd}< <(exec nsenter --net="/run/netns/$1" "$bin/causeway-testserver" --tcp "0.0.0.0:$2")
  read -r ready <&"$fd" || fail "no server in $1"
}
serve internet 80
for pod in "${pods[@]}"; do serve "$pod" 80; serve "$pod" 8080; done
for pod in pod1 pod3; do
  answer=$(ip netns exec $pod curl -sS --max-time 3 http://198.51.100.10/ | head -1) || fail "$pod does not reach the internet"
  line "$pod gets an answer from ${answer##* }"
done

say "Host port 8080 of node1 leads to pod1"
host_port() { # FROM URL COMMAND..: asks it
  local from=$1 url=$2 answer; shift 2
  answer=$("$@" curl -sS --max-time 3 "$url" | head -1) || fail "no answer from $url"
  line "from $from, $url is answered by ${answer##* }"
}
host_port "the internet" http://172.18.0.2:8080/ ip netns exec internet
host_port "the node itself" http://127.0.0.1:8080/ on node1

say "Start etcd, and causewayd on both nodes"
exec {etcd}< <(exec nsenter --net=/run/netns/store --mount="/proc/${holder[store]}/ns/mnt" -- \
  etcd --data-dir /var/lib/etcd --log-outputs /run/etcd.log --logger zap \
  --listen-client-urls http://172.18.0.10:2379 --advertise-client-urls http://172.18.0.10:2379 2>&1)
declare -A daemon_pid=()
daemon() { # NODE SUBNET: causewayd, ready and connected
  local node=$1 fd
  exec {fd}< <(exec nsenter --net="/run/netns/$node" --mount="/proc/${holder[$node]}/ns/mnt" -- \
    "$bin/causewayd" --node-name "$node" --store etcd --etcd-endpoints http://172.18.0.10:2379 \
    --service-cidr 172.17.0.0/16 --node-subnet "$2" --endpoint-ttl 5s \
    --dns-upstream 198.51.100.10 2>>"/run/causewayd-$node.log")
  daemon_pid[$node]=$!
  until_true "causewayd on $node is connected" on "$node" "$bin/causeway" status
}
until_true() { # WHAT COMMAND..: waits until it succeeds, ten seconds at most
  local what=$1 fd; shift
  exec {fd}< <(exec sleep 10)
  until "$@" >/dev/null 2>&1; do
    if read -rt 0.05 <&"$fd"; then :; elif [ $? -lt 128 ]; then tail -n 5 /run/causewayd-*.log >&2; fail "not so within 10 s: $what"; fi
  done
  exec {fd}<&-
}
ready_nodes() { [ "$(cw get nodes | awk '$2 == "Ready"' | wc -l)" = "$1" ]; }
endpoints_are() { # NODE ADDRESSES: what the node takes for the endpoints
  [ "$(on "$1" "$bin/causeway" get endpoints http-server-vip -o json |
    jq -r '[.subsets[]?.addresses[]?.ip] | join(" ")')" = "$2" ]
}
four="10.0.1.2 10.0.1.3 10.0.2.2 10.0.2.3"
daemon node1 10.0.1.0/24
daemon node2 10.0.2.0/24
cw() { on node1 "$bin/causeway" "$@"; }
cw2() { on node2 "$bin/causeway" "$@"; }
until_true "node1 knows node2" ready_nodes 2
cw get nodes | sed 's/^/  /'

say "causeway apply -f conf/clusterip.yaml, on node1; what node2 knows of it"
cw apply -f "$here/conf/clusterip.yaml" | sed 's/^/  /'
until_true "node2 has the service" endpoints_are node2 "$four"
cw2 get services | sed 's/^/  /'
cw2 get endpoints | sed 's/^/  /'

ask() { # TITLE NAMESPACE URL COUNT: requests, one after the other, and who answers each
  local title=$1 ns=$2 url=$3 answer
  answers=''
  for ((n = 1; n <= $4; n++)); do
    answer=$(ip netns exec "$ns" curl -sS --max-time 3 "$url" | head -1) || fail "no answer from $url"
    answers+="${answer##* } "
  done
  line "$title: ${answers% }"
}
in_order() { [ "$answers" = "$*" ] || [ "$answers" = "$* " ] || fail "not in this order: $*"; }
say "Four requests each to the service: all four containers answer"
ask "172.17.10.10:3001 from pod1 on node1" pod1 http://172.17.10.10:3001/ 4
in_order 10.0.1.2 10.0.1.3 10.0.2.2 10.0.2.3
ask "172.17.10.10:3001 from pod3 on node2" pod3 http://172.17.10.10:3001/ 4
in_order 10.0.1.2 10.0.1.3 10.0.2.2 10.0.2.3
for node in 172.18.0.2 172.18.0.3; do
  ask "$node:30001 from the internet" internet "http://$node:30001/" 4
  [ "$(tr ' ' '\n' <<<"$answers" | sort -u | tr -d '\n')" = "${four// /}" ] || fail "not all four answer: $answers"
done

say "A name in the place of an address: pod3 asks its own node, which knows the services of both"
printf 'nameserver %s\n' 10.0.2.1 >/run/resolv.conf
printf 'search %s\noptions ndots:5\n' "default.svc.cluster.local svc.cluster.local cluster.local" >>/run/resolv.conf
by_name() { # NAMESPACE COMMAND..: with that resolv.conf
  local ns=$1; shift
  ip netns exec "$ns" unshare --mount sh -c 'mount --bind /run/resolv.conf /etc/resolv.conf && exec "$@"' sh "$@"
}
until_true "names are answered" by_name pod3 curl -sS --max-time 3 http://http-server-vip:3001/
answer=$(by_name pod3 curl -sS --max-time 3 http://http-server-vip:3001/ | head -1) || fail "no answer by name"
line "http://http-server-vip:3001/ is answered by ${answer##* }"

say "The tutorial's ExternalName: a server on the internet knows its target"
exec {outside}< <(exec nsenter --net=/run/netns/internet -- dnsmasq --keep-in-foreground \
  --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces --listen-address=198.51.100.10 --pid-file= \
  --user=root --local-ttl=60 --host-record=api.ipify.org,104.26.12.205 2>&1)
cw2 apply -f - <<'YAML' | sed 's/^/  /'
apiVersion: v1
kind: Service
metadata: { name: my-ip-service }
spec: { type: ExternalName, externalName: api.ipify.org }
YAML
external() { cw2 dns my-ip-service.default.svc.cluster.local; }
leads_outside() { external | grep -q 'IN A '; }
until_true "its target is found" leads_outside
external | sed 's/^/  /'
cw2 delete service my-ip-service | sed 's/^/  /'

say "causeway trace 10.0.2.2 http-server-vip:3001, on node2"
cw2 trace 10.0.2.2 http-server-vip:3001 | sed 's/^/  /'

say "Detach pod2 on node1: it is out of the service on node2, too"
three="10.0.1.2 10.0.2.2 10.0.2.3"
cni node1 del pod2 || fail "DEL of pod2"
until_true "pod2 is gone on node2" endpoints_are node2 "$three"
cw2 get endpoints | sed 's/^/  /'

say "node2 dies: its daemon is killed, its network cut"
kill -9 "${daemon_pid[node2]}"
wait "${daemon_pid[node2]}" 2>/dev/null || true
ip -n node2 link set eth0 down
started=$(date +%s%N)
until_true "its endpoints are out" endpoints_are node1 "10.0.1.2"
line "its containers are out of the service after $(( ($(date +%s%N) - started) / 100000000 ))00 ms (--endpoint-ttl 5s)"
cw get nodes | sed 's/^/  /'
ask "172.18.0.2:30001 from the internet" internet http://172.18.0.2:30001/ 4
! grep -q '10\.0\.2\.' <<<"$answers" || fail "a dead node answers"

say "node2 returns, and so do its containers"
ip -n node2 link set eth0 up
ip -n node2 route replace default via 172.18.0.1
daemon node2 10.0.2.0/24
until_true "its containers are back" endpoints_are node1 "$three"
cw get endpoints | sed 's/^/  /'

say "Delete the service, detach the containers, clean up both nodes"
cw2 delete -f "$here/conf/clusterip.yaml" | sed 's/^/  /'
! ip netns exec pod3 curl -sS --max-time 3 http://172.17.10.10:3001/ 2>/dev/null || fail "the service still answers"
for pod in "${pods[@]}"; do
  CAP_ARGS=''
  cni "${node_of[$pod]}" del "$pod" || fail "DEL of $pod"
done
for node in node1 node2; do
  kill "${daemon_pid[$node]}"
  wait "${daemon_pid[$node]}" 2>/dev/null || true
  on "$node" "$bin/causewayd" cleanup | tail -1 | sed "s/^/  $node: /"
done

say "What is left"
left=0
for n in node1 node2; do
  veths=$(on $n ip -br link show type veth | grep -vc '^eth0' || true)
  rules=$(on $n nft list ruleset | wc -l)
  leases=$(on $n "$bin/causeway-ipam" show --network causeway | jq length)
  records=$(on $n find /run/causeway -type f ! -name rules.lock | wc -l)
  line "$n has $veths veths, $rules lines of nft rules, $leases leases, $records attachment records"
  left=$((left + veths + rules + leases + records))
done
[ "$left" = 0 ] || fail "something is left"
line "The bridge cw0 and its vxlan device stay for the next container, as with every bridge plugin."
say "Done."
