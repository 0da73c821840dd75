set -eu
join=$1 name=$2 before=$3 ask=$4
/usr/libexec/incus/incusd waitready --timeout=20
if ! incus query /1.0/cluster | grep -q '"enabled": true'; then
  tries=0
  until [ -z "$before" ] || INCUS_CONF=$ask timeout 5 incus query "first:/1.0/cluster/members/$before" 2>/dev/null | grep -q '"user.bivouac.joined": "true"'; do
    [ "$tries" -lt 80 ] || { echo "$before is not in the cluster yet" >&2; exit 1; }
    tries=$((tries + 1))
    sleep 0.1
  done
  joined=
  for other in "$join"/*.json; do
    if said=$(timeout 25 incus query --wait -X PUT -d "$(cat "$other")" /1.0/cluster 2>&1); then
      joined=yes
      break
    fi
  done
  [ -n "$joined" ] || { echo "$said" >&2; exit 1; }
fi
incus cluster set "$name" user.bivouac.joined=true
