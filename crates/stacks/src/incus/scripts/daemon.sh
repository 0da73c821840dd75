marker=$1 name=$2 data=$3
shift 3
if [ -e "$marker.wipe" ]; then
  umount "$data"/storage-pools/* 2> /dev/null
  (cd "$data" && rm -rf database storage-pools disks images cluster.crt cluster.key) && rm -f "$marker" "$marker.wipe"
elif [ -e "$marker" ] && [ -e "$data/cluster.key" ]; then
  # Whoever may vote in the database without being listed would not start. The others may need its vote to take it out.
  echo "UPDATE nodes SET state = 0 WHERE name = '$name' AND state = 1;" > "$data/database/patch.global.sql"
fi
exec "$@"
