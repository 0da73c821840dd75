# A monitor for each instance that runs; its child is the instance's first process.
monitors() { pgrep --full '^\[lxc monitor\]'; }
halt() {
  # Whoever is systemd takes another signal than the usual one (SIGRTMIN+3), and is known by waiting for it.
  blocked=$(sed -n 's/^SigBlk:[[:space:]]*//p' "/proc/$1/status")
  if [ $(((0x$blocked >> 36) & 1)) = 1 ]; then kill -37 "$1"; else kill -PWR "$1"; fi
}
end() {
  for monitor in $(monitors); do
    for first in $(cat "/proc/$monitor/task/$monitor/children"); do halt "$first"; done
  done
  tries=0
  while monitors > /dev/null && [ "$tries" -lt 60 ]; do sleep 0.2; tries=$((tries + 1)); done
  exit 0
}
trap end TERM INT
while :; do sleep infinity & wait $!; done
