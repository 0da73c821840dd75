wipe=$1 data=$2
shift 2
if [ -e "$wipe" ]; then
  rm -rf "$data/database" "$data/storage-pools" "$data/cluster.crt" "$data/cluster.key" && rm -f "$wipe"
fi
exec "$@"
