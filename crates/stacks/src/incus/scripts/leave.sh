name=$1
listed "$name"
while :; do
  status=$(incus query "/1.0/cluster/members/$name" 2>&1) || case $status in
    *"ot found"*) exit 0 ;;
    *) echo "$status" >&2; exit 1 ;;
  esac
  # It was cut short before it was put into a group. Instances come to whoever is listed all the same.
  case $status in *'"groups": []'* | *'"groups": null'*)
    database "SELECT instances.name FROM instances JOIN nodes ON nodes.id = instances.node_id WHERE nodes.name = '$name'"
    [ -n "$said" ] || exec incus cluster remove "$name" --force --yes
    incus cluster group assign "$name" default --quiet
    ;;
  esac
  offline=false
  case $status in *'"status": "Offline"'*) offline=true ;; esac
  if timeout 5 incus query "/1.0?target=$name" > /dev/null 2>&1; then
    # Its last sign of life may be late while it lives, with instances on it.
    "$offline" || break
  elif "$offline"; then
    exec incus cluster remove "$name" --force --yes
  fi
  sleep 1
done
case $status in
  *'"status": "Evacuated"'*) ;;
  *) incus cluster evacuate "$name" --action=migrate --force --quiet ;;
esac
exec incus cluster remove "$name" --yes
