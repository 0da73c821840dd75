daemon=$1
trap 'kill $!; exec "$daemon" shutdown --timeout=15' TERM INT
while :; do sleep infinity & wait $!; done
