# no marker, not joined: joins    no marker, joined: is a member
# marker with a time: a join was begun then, and incusd may still be at it
# empty marker: a join was cut short; what is left of it is forgotten and wiped, then it joins
set -eu
join=$1 name=$2 before=$3 marker=$4 own=$5 service=$6
# Seconds since the machine was started.
now() { cut -d . -f 1 /proc/uptime; }
within() {
  seconds=$1 code=0
  shift
  timeout "$seconds" "$@" || code=$?
  for whom; do :; done
  [ "$code" != 124 ] || echo "no answer within $seconds s: $whom" >&2
  return "$code"
}
ask() {
  patience=$1
  shift
  within "$patience" env INCUS_CONF=/etc/incus/ask incus "$@"
}
# Members may ask each other what users may not.
database() {
  within 10 env INCUS_CONF=/etc/incus/itself incus query -X POST -d "{\"database\": \"global\", \"query\": \"$1\"}" "$other:/internal/sql"
}
ready() { /usr/libexec/incus/incusd waitready --timeout=10; }
joined() { timeout 10 incus query /1.0/cluster | grep -q '"enabled": true'; }
others=$(cd "$join" && ls | sed 's/\.json$//')
# One that answers for the cluster, and says that the one before has joined.
meet() {
  for other in $others; do
    said=$(ask 3 query "$other:/1.0/cluster/members/${before:-$other}" 2>&1) || { said="$other: $said"; continue; }
    case $before,$said in ,* | *'"user.bivouac.joined": "true"'*) return 0 ;; esac
    said="$before is not in the cluster yet"
  done
  return 1
}
# Says what it waits for before the agent ends this, and begins again.
wait_for_others() {
  last=$(($(now) + 6))
  until meet; do
    [ "$(now)" -lt "$last" ] || { echo "$said" >&2; exit 1; }
    sleep 0.1
  done
}
# To be put into a group is the last that the cluster must know of a member.
whole() {
  said=$(ask 3 query "$other:/1.0/cluster/members/$name" 2>&1) || case $said in
    *"ot found"*) return 1 ;;
    *) echo "$other: $said" >&2; exit 1 ;;
  esac
  case $said in *'"groups": []'* | *'"groups": null'*) return 1 ;; esac
}
under_way() {
  since=$(cat "$marker")
  [ -n "$since" ] && [ $(($(now) - since)) -lt 120 ]
}
still_joining() {
  echo "incusd is still joining" >&2
  exit 1
}
# Instances come to whoever is listed, in a group or not, and volumes and buckets can be made there.
holds() {
  of="JOIN nodes ON nodes.id = node_id WHERE nodes.name = '$name'"
  said=$(database "SELECT instances.name FROM instances $of UNION ALL SELECT storage_volumes.name FROM storage_volumes $of AND storage_volumes.type = 2 UNION ALL SELECT storage_buckets.name FROM storage_buckets $of") || exit 1
  case $said in *'"rows": null'*) return 1 ;; esac
}
# The database counts a member before the cluster lists it, and takes out only what is listed.
forget() {
  database "UPDATE nodes SET state = 0 WHERE name = '$name' AND state = 1" > /dev/null
  said=$(ask 10 query -X DELETE "$other:/1.0/cluster/members/$name?force=1" 2>&1) || case $said in
    *"ot found"*) ;;
    *) echo "$other: $said" >&2; exit 1 ;;
  esac
  trust
}
trust() {
  said=$(ask 10 query -X POST -d "$(cat "$own")" "$other:/1.0/certificates" 2>&1) || case $said in
    *"already in trust store"*) ;;
    *) echo "$other: $said" >&2; exit 1 ;;
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
  if ! whole; then
    ! under_way || still_joining
    trust
    if holds; then
      ask 10 cluster group assign --quiet "$other:$name" default
    else
      forget
      wipe
    fi
  fi
fi
ready
if ! joined; then
  wait_for_others
  now > "$marker"
  code=0
  timeout 15 incus query --wait -X PUT -d "$(cat "$join/$other.json")" /1.0/cluster > /dev/null || code=$?
  case $code in
    0) ;;
    # incusd goes on with what nobody waits for any more.
    124) still_joining ;;
    *) : > "$marker"; exit 1 ;;
  esac
fi
said=$(within 10 incus cluster set "$name" user.bivouac.joined=true 2>&1) || {
  echo "$said" >&2
  # It was cut short, and incusd refuses to set anything of a member that is in no group.
  case $said in *"at least one group"*) : > "$marker" ;; esac
  exit 1
}
rm -f "$marker"
