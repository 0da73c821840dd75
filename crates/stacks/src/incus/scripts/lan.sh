set -eu
number=$1 mtu=$2 own=$3 address=$4 rules=$5
shift 5
[ -e /sys/class/net/lxd-lan ] || ip link add lxd-lan type bridge
ip link set lxd-lan mtu "$mtu"
[ -e /sys/class/net/lxd-vxlan ] || ip link add lxd-vxlan type vxlan id "$number" dstport 4789 local "$own" learning
ip link set lxd-vxlan mtu "$mtu" master lxd-lan up
bridge fdb show dev lxd-vxlan | while read -r mac _ peer rest; do
  [ "$mac" = 00:00:00:00:00:00 ] || continue
  case " $* " in *" $peer "*) ;; *) bridge fdb del "$mac" dev lxd-vxlan dst "$peer" self ;; esac
done
there=" $(bridge fdb show dev lxd-vxlan | sed -n 's/^00:00:00:00:00:00 dst \([^ ]*\).*/\1/p' | tr '\n' ' ')"
for peer; do
  case $there in *" $peer "*) ;; *) bridge fdb append 00:00:00:00:00:00 dev lxd-vxlan dst "$peer" self permanent ;; esac
done
ip address replace "$address" dev lxd-lan
ip link set lxd-lan up
nft -f "$rules"
