# A request to incusd whose body is a file, because the arguments of processes are for everybody to read. Our side stays open until the
# answer is there: to incusd a client that closes its side has given up.
method=$1 path=$2 body=$3 socket=$4
request() {
  printf '%s %s HTTP/1.0\r\nHost: incus\r\nContent-Type: application/json\r\n' "$method" "$path"
  printf 'Content-Length: %s\r\n\r\n' "$(wc -c < "$body")"
  cat "$body"
}
answer=$(request | socat -t 60 - "UNIX-CONNECT:$socket,shut-none")
case $answer in
  'HTTP/1.0 200 '* | 'HTTP/1.1 200 '*) ;;
  *) echo "$method $path: $(printf '%s\n' "$answer" | tail -n 1)" >&2; exit 1 ;;
esac
