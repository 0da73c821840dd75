set -eu
home=$1 driver=$2 preseed=$3 certificate=$4 key=$5 trust=$6 users=$7 options=$8 name=$9 send=${10} socket=${11}
/usr/libexec/incus/incusd waitready --timeout=20
if ! incus query /1.0/cluster | grep -q '"enabled": true'; then
  if [ "$driver" != dir ] && ! grep -qw "$driver" /proc/filesystems; then
    echo "the kernel has no $driver: write another storage.driver in the cluster file" >&2
    exit 1
  fi
  incus admin init --preseed < "$preseed"
fi
cmp -s "$home/cluster.crt" "$certificate" || incus cluster update-certificate "$certificate" "$key" --quiet
known=$(incus query '/1.0/certificates?recursion=1')
for peer in "$trust"/*.json; do
  [ -e "$peer" ] || continue
  peer_name=${peer##*/}
  case $known in *"\"name\": \"${peer_name%.json}\""*) continue ;; esac
  # Another member may do the same at this moment.
  said=$(incus query -X POST -d "$(cat "$peer")" /1.0/certificates 2>&1) || case $said in
    *"already in trust store"*) ;;
    *) echo "$said" >&2; exit 1 ;;
  esac
done
for user in "$users"/*.crt; do
  user_name=${user##*/}
  case $known in *"\"name\": \"${user_name%.crt}\""*) continue ;; esac
  incus config trust add-certificate "$user" --name "${user_name%.crt}"
done
incus cluster set "$name" user.bivouac.joined=true
[ "$(incus config get user.bivouac.founded)" = true ] || sh "$send" PATCH /1.0 "$options" "$socket"
