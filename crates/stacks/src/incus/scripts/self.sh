set -eu
name=$1 zone=$2
shift 2
[ $# = 0 ] || incus cluster set "$name" "$@"
[ -n "$zone" ] || exit 0
incus cluster show "$name" | sed "s/^failure_domain: .*/failure_domain: \"$zone\"/" | incus cluster edit "$name"
