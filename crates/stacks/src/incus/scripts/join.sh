set -eu
join=$1
/usr/libexec/incus/incusd waitready --timeout=20
for other in "$join"/*.json; do
  ! incus query /1.0/cluster | grep -q '"enabled": true' || exit 0
  said=$(incus query --wait -X PUT -d "$(cat "$other")" /1.0/cluster 2>&1) && exit
done
echo "$said" >&2
exit 1
