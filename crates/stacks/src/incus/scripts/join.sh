set -eu
join=$1 name=$2 before=$3 marker=$4 own=$5 service=$6
ask() { INCUS_CONF=/etc/incus/ask timeout 10 incus query "$@"; }
ready() { /usr/libexec/incus/incusd waitready --timeout="$1"; }
joined() { incus query /1.0/cluster | grep -q '"enabled": true'; }
# Whoever was cut short while joining is half of a member, and nothing of worth is in it yet.
anew() {
  : > "$marker.wipe"
  /usr/local/bin/bivouac agent restart "$service"
  tries=0
  while [ -e "$marker.wipe" ] && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
  ready 10
}
others=$(cd "$join" && ls | sed 's/\.json$//')
if ! ready 10; then
  [ -e "$marker" ] || exit 1
  for other in $others; do
    ask "$other:/1.0" > /dev/null && ! ask "$other:/1.0/cluster/members/$name" > /dev/null 2>&1 && { anew; break; }
  done
fi
if ! joined; then
  for other in $others; do
    tries=0
    until [ -z "$before" ] || ask "$other:/1.0/cluster/members/$before" 2> /dev/null | grep -q '"user.bivouac.joined": "true"'; do
      [ "$tries" -lt 60 ] || { echo "$before is not in the cluster yet" >&2; exit 1; }
      tries=$((tries + 1))
      sleep 0.1
    done
    said=$(ask "$other:/1.0" 2>&1) || continue
    if [ -e "$marker" ]; then
      anew
      ask -X DELETE "$other:/1.0/cluster/members/$name?force=1" > /dev/null 2>&1 || :
      ask -X POST -d "$(cat "$own")" "$other:/1.0/certificates" > /dev/null 2>&1 || :
    fi
    : > "$marker"
    if said=$(timeout 25 incus query --wait -X PUT -d "$(cat "$join/$other.json")" /1.0/cluster 2>&1); then break; fi
  done
  joined || { echo "$said" >&2; exit 1; }
fi
rm -f "$marker"
incus cluster set "$name" user.bivouac.joined=true
