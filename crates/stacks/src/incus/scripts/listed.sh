set -eu
# Whoever was cut short while it joined may have a vote in the database and not be listed; only what is listed can be taken out.
listed() {
  tries=0
  until said=$(incus admin sql global "UPDATE nodes SET state = 0 WHERE name = '$1' AND state = 1" 2>&1); do
    # Such a request gives up at once when somebody else writes.
    [ "$tries" -lt 50 ] || { echo "$said" >&2; exit 1; }
    tries=$((tries + 1))
    sleep 0.2
  done
}
