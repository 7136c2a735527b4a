#!/bin/bash
# The demo: two nodes, containers, one overlay, a service; all in namespaces that vanish with it.
#
# `make demo` builds what it needs and calls this as root. It enters fresh network, mount and
# process namespaces first: nothing of it touches the host, whatever happens.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${CAUSEWAY_BIN:?the folder of the release binaries}
tools=${CAUSEWAY_TOOLS:?the folder of cnitool}

if [ "${CAUSEWAY_DEMO_INSIDE:-}" != yes ]; then
  CAUSEWAY_DEMO_INSIDE=yes exec unshare --net --mount --pid --fork --mount-proc --propagation private "$0"
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

say "Two nodes, a router, a host on the internet (all of them network namespaces)"
hosts=(switch node1 node2 router internet) pods=(pod1 pod2 pod3 pod4) webs=(web1 web2 web3)
# All network namespaces come first: a mount namespace sees those that were there when it began.
for ns in "${hosts[@]}" "${pods[@]}" "${webs[@]}"; do ip netns add "$ns"; ip -n "$ns" link set lo up; done
for h in "${hosts[@]}"; do host "$h"; done
ip -n switch link add underlay type bridge mcast_snooping 0
ip -n switch link set underlay up
wire node1 172.18.0.2/24
wire node2 172.18.0.3/24
wire router 172.18.0.1/24
ip link add eth1 netns router type veth peer name eth0 netns internet
ip -n router addr add 198.51.100.1/24 dev eth1; ip -n router link set eth1 up
ip -n internet addr add 198.51.100.10/24 dev eth0; ip -n internet link set eth0 up
ip -n internet route add default via 198.51.100.1
on router sysctl -qw net.ipv4.ip_forward=1
for n in node1 node2; do ip -n $n route add default via 172.18.0.1; done
line "node1 172.18.0.2   node2 172.18.0.3   router 172.18.0.1   internet 198.51.100.10"

cni() { # NODE VERB POD: one call of cnitool with the network of conf/
  local node=$1 verb=$2 pod=$3
  on "$node" env CNI_PATH="$bin" NETCONFPATH="/run/conf-$node" CAP_ARGS="${CAP_ARGS:-}" \
    CNI_ARGS="${CNI_ARGS:-}" CNI_IFNAME=eth0 "$tools/cnitool" "$verb" causeway "/run/netns/$pod"
}
declare -A node_of=([pod1]=node1 [pod2]=node1 [pod3]=node2 [pod4]=node2 [web1]=node1 [web2]=node1 [web3]=node1)
declare -A addr=()
for n in node1 node2; do
  mkdir -p "/run/conf-$n"
  cp "$here/conf/20-causeway-vxlan-$n.conflist" "/run/conf-$n/"
done

say "cnitool add: four containers through conf/20-causeway-vxlan-node{1,2}.conflist"
for pod in "${pods[@]}"; do
  CAP_ARGS=''
  [ "$pod" != pod1 ] || CAP_ARGS='{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}'
  started=$(date +%s%N)
  result=$(cni "${node_of[$pod]}" add "$pod")
  took=$(( ($(date +%s%N) - started) / 1000 ))
  addr[$pod]=$(jq -r '.ips[0].address' <<<"$result")
  line "$pod on ${node_of[$pod]}: eth0 ${addr[$pod]}, gateway $(jq -r '.ips[0].gateway' <<<"$result"), mtu $(jq -r '.interfaces[]|select(.name=="eth0").mtu' <<<"$result"), $((took/1000)).$(printf %03d $((took%1000))) ms with cnitool"
done
[ "${addr[pod1]} ${addr[pod2]} ${addr[pod3]} ${addr[pod4]}" = "10.0.1.2/16 10.0.1.3/16 10.0.2.2/16 10.0.2.3/16" ] ||
  fail "addresses are ${addr[pod1]} ${addr[pod2]} ${addr[pod3]} ${addr[pod4]}"

say "The overlay on node1"
on node1 ip -br link show type bridge | sed 's/^/  /'
on node1 ip -d link show type vxlan | grep -o 'vxlan id .* dstport [0-9]*' | sed 's/^/  /'

say "Twelve pings"
for from in "${pods[@]}"; do
  out="  $from ->"
  for to in "${pods[@]}"; do
    [ "$from" != "$to" ] || continue
    reply=$(ip netns exec "$from" ping -n -c1 -W2 "${addr[$to]%/*}") || fail "$from does not reach $to: $reply"
    out+="  $to $(grep -o 'ttl=[0-9]*' <<<"$reply") $(grep -o 'time=.*' <<<"$reply")"
  done
  echo "$out"
done

say "Out to the internet, masqueraded (the router has no route to 10.0.0.0/16)"
serve() { # NAMESPACE: a web server in it; returns when it listens
  local fd ready
  exec {fd}< <(exec nsenter --net="/run/netns/$1" "$bin/causeway-testserver" --tcp 0.0.0.0:80)
  read -r ready <&"$fd" || fail "no server in $1"
}
serve internet
serve pod1
for pod in pod1 pod3; do
  line "$pod: $(ip netns exec $pod curl -sS --max-time 3 http://198.51.100.10/ | tr '\n' ' ')"
done

say "Host port 8080 of node1, asked from the internet host"
line "curl http://172.18.0.2:8080/ -> $(ip netns exec internet curl -sS --max-time 3 http://172.18.0.2:8080/ | tr '\n' ' ')"
line "and on the node itself: curl http://127.0.0.1:8080/ -> $(on node1 curl -sS --max-time 3 http://127.0.0.1:8080/ | tr '\n' ' ')"

say "Services: causewayd on node1, three containers with the label app=cs-pod"
exec {daemon}< <(exec nsenter --net=/run/netns/node1 --mount="/proc/${holder[node1]}/ns/mnt" -- \
  "$bin/causewayd" --node-name node1 --cluster-cidr 10.0.0.0/16 2>/run/causewayd.log)
daemon_pid=$!
for _ in $(seq 200); do
  ! on node1 "$bin/causeway" status >/dev/null 2>&1 || break
  kill -0 "$daemon_pid" 2>/dev/null || { cat /run/causewayd.log >&2; fail "causewayd ended"; }
  read -rt 0.05 <&"$daemon" || true
done
cw() { on node1 "$bin/causeway" "$@"; }
for web in "${webs[@]}"; do
  result=$(CNI_ARGS='CAUSEWAY_LABELS=app:cs-pod' cni node1 add "$web")
  addr[$web]=$(jq -r '.ips[0].address' <<<"$result")
  serve "$web"
  line "$web: ${addr[$web]}"
done

say "causeway apply -f conf/nodeport.yaml (the tutorial's file)"
sed 's/^/  | /' "$here/conf/nodeport.yaml"
cw apply -f "$here/conf/nodeport.yaml" | sed 's/^/  /'
cw get services | sed 's/^/  /'
cw get endpoints | sed 's/^/  /'
vip=$(cw get service http-server-svc -o json | jq -r .spec.clusterIP)

eight() { # TITLE NAMESPACE URL: eight requests, each answer, the share of each container
  local title=$1 ns=$2 url=$3 answer counts=''
  say "$title"
  for n in 1 2 3 4 5 6 7 8; do
    answer=$(ip netns exec "$ns" curl -sS --max-time 3 "$url" | head -1) || fail "no answer from $url"
    line "$n: $answer"
    counts+="${answer##* }"$'\n'
  done
  answers=$(printf %s "$counts" | sort | uniq -c | awk '{ printf "%s %d of 8   ", $2, $1 }')
  line "shares: $answers"
}
eight "curl http://$vip:8080/ from a container, eight times" pod1 "http://$vip:8080/"
eight "curl http://172.18.0.2:30080/ from the internet host, eight times" internet http://172.18.0.2:30080/
for web in "${webs[@]}"; do
  grep -q "${addr[$web]%/*} " <<<"$(cw svc test http-server-svc -n 60)" || fail "$web never answers"
done

say "cnitool del web2: out of rotation when it returns"
cni node1 del web2 || fail "DEL of web2"
cw get endpoints | sed 's/^/  /'
eight "curl http://172.18.0.2:30080/ again" internet http://172.18.0.2:30080/
! grep -q "${addr[web2]%/*} " <<<"$answers" || fail "web2 still answers"

say "causeway trace: why"
cw trace default/"$(cw get pods -o json | jq -r '.items[0].metadata.name')" http-server-svc:8080 | sed 's/^/  /'

say "The end of the service and of its containers"
cw delete -f "$here/conf/nodeport.yaml" | sed 's/^/  /'
! ip netns exec pod1 curl -sS --max-time 3 "http://$vip:8080/" 2>/dev/null || fail "the service still answers"
for web in web1 web3; do cni node1 del "$web" || fail "DEL of $web"; done
kill "$daemon_pid"
wait "$daemon_pid" 2>/dev/null || true
on node1 "$bin/causewayd" cleanup | sed 's/^/  /'

say "cnitool del, four times"
for pod in "${pods[@]}"; do
  CAP_ARGS=''
  started=$(date +%s%N)
  cni "${node_of[$pod]}" del "$pod" || fail "DEL of $pod"
  took=$(( ($(date +%s%N) - started) / 1000 ))
  line "$pod: gone in $((took/1000)).$(printf %03d $((took%1000))) ms with cnitool"
done

say "What is left"
left=0
for n in node1 node2; do
  veths=$(on $n ip -br link show type veth | grep -vc '^eth0' || true)
  rules=$(on $n nft list ruleset | wc -l)
  leases=$(on $n "$bin/causeway-ipam" show --network causeway | jq length)
  records=$(on $n find /run/causeway -type f ! -name rules.lock | wc -l)
  line "$n: veths $veths, lines of nft rules $rules, leases $leases, attachment records $records"
  left=$((left + veths + rules + leases + records))
done
[ "$left" = 0 ] || fail "something is left"
line "The bridge cw0 and its vxlan stay for the next container, as with every bridge plugin."
say "Done."
