name=$1 node=$2
# Seconds since the machine was started.
now() { cut -d . -f 1 /proc/uptime; }
# What is on this member only.
holds() {
  of="JOIN nodes ON nodes.id = node_id WHERE nodes.name = '$name'"
  database "SELECT 'instance', instances.name FROM instances $of UNION ALL SELECT 'volume', storage_volumes.name FROM storage_volumes $of AND storage_volumes.type = 2 UNION ALL SELECT 'bucket', storage_buckets.name FROM storage_buckets $of"
  [ -n "$said" ]
}
# What it has is lost with it. That is nobody's to decide but its owner's, while its node is there.
force() {
  if [ "$node" = there ] && holds; then
    echo "$name does not answer, and it alone has: $(echo "$said" | tr ',\n' ' ,' | sed 's/,$//; s/,/, /g')" >&2
    exit 1
  fi
  exec incus cluster remove "$name" --force --yes
}
listed "$name"
last=$(($(now) + 120))
while :; do
  status=$(incus query "/1.0/cluster/members/$name" 2>&1) || case $status in
    *"ot found"*) exit 0 ;;
    *) echo "$status" >&2; exit 1 ;;
  esac
  # It was cut short before it was put into a group. Instances come to whoever is listed all the same.
  case $status in *'"groups": []'* | *'"groups": null'*)
    holds || exec incus cluster remove "$name" --force --yes
    incus cluster group assign "$name" default --quiet
    ;;
  esac
  offline=false
  case $status in *'"status": "Offline"'*) offline=true ;; esac
  if timeout 5 incus query "/1.0?target=$name" > /dev/null 2>&1; then
    # Its last sign of life may be late while it lives, with instances on it.
    "$offline" || break
    seen="it answers, and the others count it as offline"
  elif "$offline"; then
    force
  else
    seen="it does not answer, and the others do not count it as offline"
  fi
  [ "$(now)" -lt "$last" ] || { echo "$name: $seen" >&2; exit 1; }
  sleep 1
done
case $status in
  *'"status": "Evacuated"'*) ;;
  *) incus cluster evacuate "$name" --action=migrate --force --quiet ;;
esac
exec incus cluster remove "$name" --yes
