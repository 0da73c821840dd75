marker=$1 name=$2 data=$3
shift 3
if [ -e "$marker.wipe" ]; then
  umount "$data"/storage-pools/* 2> /dev/null
  (cd "$data" && rm -rf database storage-pools disks images cluster.crt cluster.key) && rm -f "$marker" "$marker.wipe"
elif [ -e "$marker" ]; then
  # A join ends with the incusd that was at it.
  : > "$marker"
  # Whoever may vote in the database without being listed would not start. The others may need its vote to take it out.
  [ ! -e "$data/cluster.key" ] || echo "UPDATE nodes SET state = 0 WHERE name = '$name' AND state = 1;" > "$data/database/patch.global.sql"
fi
exec "$@"
