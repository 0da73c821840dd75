set -eu
name=$1
while :; do
  status=$(incus query "/1.0/cluster/members/$name" 2>&1) || case $status in
    *"ot found"*) exit 0 ;;
    *) echo "$status" >&2; exit 1 ;;
  esac
  case $status in *'"status": "Offline"'*) exec incus cluster remove "$name" --force --yes ;; esac
  ! timeout 5 incus query "/1.0?target=$name" > /dev/null 2>&1 || break
  # It may be on its way to be found lost.
  sleep 1
done
case $status in
  *'"status": "Evacuated"'*) ;;
  *) incus cluster evacuate "$name" --action=migrate --force --quiet ;;
esac
exec incus cluster remove "$name" --yes
