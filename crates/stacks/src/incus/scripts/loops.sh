set -eu
# The kernel has them all; nobody makes their files in a node. Other nodes use the same ones, and the kernel makes more when they are asked for.
device() { [ -e "/dev/$1" ] || mknod -m 0600 "/dev/$1" "$2" "$3" "$4"; }
device loop-control c 10 237
device btrfs-control c 10 234
last=0
for path in /sys/block/loop*; do
  number="${path##*/loop}"
  case "$number" in *[!0-9]*) continue ;; esac
  [ "$number" -le "$last" ] || last="$number"
done
number=0
while [ "$number" -le $((last + 64)) ]; do
  device "loop$number" b 7 "$number"
  number=$((number + 1))
done
