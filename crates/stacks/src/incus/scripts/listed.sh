set -eu
# Such a request gives up at once when somebody else writes.
database() {
  tries=0
  until said=$(incus admin sql global --format=csv "$1" 2>&1); do
    case $said in
      *locked* | *"within a transaction"* | *"checkpoint in progress"*) ;;
      *) tries=50 ;;
    esac
    [ "$tries" -lt 50 ] || { echo "$said" >&2; exit 1; }
    tries=$((tries + 1))
    sleep 0.2
  done
}
# Whoever was cut short while it joined may have a vote in the database and not be listed; only what is listed can be taken out.
listed() { database "UPDATE nodes SET state = 0 WHERE name = '$1' AND state = 1"; }
