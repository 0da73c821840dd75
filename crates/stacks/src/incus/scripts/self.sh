set -eu
exec incus query -X PATCH -d "$(cat "$2")" "/1.0/cluster/members/$1"
