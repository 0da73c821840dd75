set -eu
data=$1 home=$2
mkdir -p "$data" "$home"
mountpoint -q "$home" || mount --bind "$data" "$home"
