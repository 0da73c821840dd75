set -eu
file=$1 name=$2
! incus query "/1.0/images/aliases/$name" > /dev/null 2>&1 || exit 0
fingerprint=$(sha256sum "$file" | cut -d ' ' -f 1)
if incus query "/1.0/images/$fingerprint" > /dev/null 2>&1; then
  exec incus image alias create "$name" "$fingerprint"
fi
exec incus image import "$file" --alias "$name" --quiet
