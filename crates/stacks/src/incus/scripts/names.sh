program=$1
shift
for server in $(sed -n 's/^nameserver  *\([^ ]*\).*/\1/p' /etc/resolv.conf); do
  set -- "$@" "--server=$server"
done
exec "$program" "$@"
