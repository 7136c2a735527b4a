#!/bin/bash
# Makes the disk of a machine that runs Debian 12 with systemd: a debootstrap with the fewest packages
# in a file system image, to be read only. Made once, and anew if this script changes.
#
#   tests/rootfs.sh IMAGE
#
# As root. Without services: whoever boots it adds what is to run.
set -euo pipefail
image=$1
# Beside Debian's smallest set.
packages=systemd-sysv,kmod,iproute2,nftables,iputils-ping
state=$(sha256sum <"$0")
[ "$(cat "$image.ready" 2>/dev/null || true)" != "$state" ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "tests/rootfs.sh: debootstrap needs root. Run first: sudo tests/deps.sh" >&2
  exit 1
fi
# The mirror of this machine's apt, which may be the only one in reach; none is debootstrap's own.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(SITE)' 2>/dev/null |
  awk '$1 == "Debian" && $2 == "bookworm" { print $3; exit }')
mkdir -p "$(dirname "$image")"
work=$(mktemp -d "$(dirname "$image")/rootfs.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
debootstrap --variant=minbase --include="$packages" bookworm "$root" ${mirror:+"$mirror"} \
  >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* \
  "$root"/usr/share/{doc,locale,man,info,zoneinfo}/*
# Nobody logs in, nothing has a calendar, and the network is set up by whoever boots this.
find "$root/etc/systemd/system" "$root/lib/systemd/system/timers.target.wants" -mindepth 1 \
  -name '*.wants' -prune -exec rm -rf {} +
echo causeway >"$root/etc/hostname"
: >"$root/etc/fstab"
size=$(($(du -s --block-size=1M "$root" | cut -f1) * 5 / 4 + 32))
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$image.new" "${size}M"
mv -f "$image.new" "$image"
echo "$state" >"$image.ready"
