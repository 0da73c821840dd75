# no marker, not joined: joins    marker: was cut short, so is forgotten and wiped, then joins    no marker, joined: is a member
set -eu
join=$1 name=$2 before=$3 marker=$4 own=$5 service=$6
ask() { INCUS_CONF=/etc/incus/ask timeout 10 incus query "$@"; }
# Members may ask each other what users may not.
ask_as_member() { INCUS_CONF=/etc/incus/itself timeout 10 incus query "$@"; }
ready() { /usr/libexec/incus/incusd waitready --timeout=10; }
joined() { timeout 10 incus query /1.0/cluster | grep -q '"enabled": true'; }
others=$(cd "$join" && ls | sed 's/\.json$//')
# One that answers for the cluster, and says that the one before has joined.
meet() {
  for other in $others; do
    said=$(ask "$other:/1.0/cluster/members/${before:-$other}" 2>&1) || continue
    case $before,$said in ,* | *'"user.bivouac.joined": "true"'*) return 0 ;; esac
    said="$before is not in the cluster yet"
  done
  return 1
}
wait_for_others() {
  tries=0
  until meet; do
    [ "$tries" -lt 60 ] || { echo "$said" >&2; exit 1; }
    tries=$((tries + 1))
    sleep 0.1
  done
}
# To be put into a group is the last that the cluster must know of a member. From then on instances may be on it.
whole() {
  said=$(ask "$other:/1.0/cluster/members/$name" 2>&1) || case $said in
    *"ot found"*) return 1 ;;
    *) echo "$said" >&2; exit 1 ;;
  esac
  case $said in *'"groups": []'* | *'"groups": null'*) return 1 ;; esac
}
# The database counts a member before the cluster lists it, and takes out only what is listed.
forget() {
  trust
  list="UPDATE nodes SET state = 0 WHERE name = '$name' AND state = 1"
  ask_as_member -X POST -d "{\"database\": \"global\", \"query\": \"$list\"}" "$other:/internal/sql" > /dev/null
  said=$(ask -X DELETE "$other:/1.0/cluster/members/$name?force=1" 2>&1) || case $said in
    *"ot found"*) ;;
    *) echo "$said" >&2; exit 1 ;;
  esac
  trust
}
trust() {
  said=$(ask -X POST -d "$(cat "$own")" "$other:/1.0/certificates" 2>&1) || case $said in
    *"already in trust store"*) ;;
    *) echo "$said" >&2; exit 1 ;;
  esac
}
# incusd does it when it starts, and takes the marker away.
wipe() {
  : > "$marker.wipe"
  /usr/local/bin/bivouac agent restart "$service"
  tries=0
  while [ -e "$marker.wipe" ]; do
    [ "$tries" -lt 100 ] || { echo "$service does not begin anew" >&2; exit 1; }
    tries=$((tries + 1))
    sleep 0.1
  done
}
if [ -e "$marker" ]; then
  wait_for_others
  whole || { forget; wipe; }
fi
ready
if ! joined; then
  wait_for_others
  : > "$marker"
  timeout 25 incus query --wait -X PUT -d "$(cat "$join/$other.json")" /1.0/cluster > /dev/null
fi
# incusd refuses to set anything of a member that is in no group.
incus cluster set "$name" user.bivouac.joined=true || { : > "$marker"; exit 1; }
rm -f "$marker"
