# no log:  joins    log: goes on with it, unless the others have taken this member out: then it forgets it, and joins
list() {
  "$etcdctl" member list
}
entries() {
  while IFS=', ' read -r id status name url rest; do
    if [ "$url" = "$peer" ]; then own="$id $status"; id=$self; fi
    cluster="$cluster$id=$url,"
  done <<END
$1
END
}
look() {
  own= cluster= known=$(list)
  entries "$known"
}
# Seconds since the machine was started.
now() { cut -d . -f 1 /proc/uptime; }
has_log() { ls "$data"/member/wal/*.wal >/dev/null 2>&1; }
# Most of the others say so, or nobody does.
is_out() {
  [ -n "$ETCDCTL_ENDPOINTS" ] || return 1
  known=$("$etcdctl" --command-timeout=1s member list 2>/dev/null) || return 1
  case $known in
    '' | *", $self, "* | *", $peer, "*) return 1 ;;
  esac
}
# Nobody is asked the first time: etcd ends by itself when it was taken out. Whose node goes is taken out a moment before, and must not come
# back; one that is still there later is wanted.
goes_on() {
  if [ ! -e "$run/begun" ] || ! is_out; then
    : > "$run/begun"
    rm -f "$run/out"
    return 0
  fi
  [ -e "$run/out" ] || now > "$run/out"
  left=$(($(cat "$run/out") + 60 - $(now)))
  [ "$left" -le 0 ] || { echo "the other members have taken $self out: it joins them anew in $left s" >&2; exit 1; }
  rm -f "$run/begun" "$run/out"
  return 1
}
# Makes the learner that runs here one of those that decide, unless it is. It says of itself whether it is a learner, over a socket without
# TLS; nothing else is answered by one.
vote() {
  status=$(unset ETCDCTL_CACERT ETCDCTL_CERT ETCDCTL_KEY; ETCDCTL_ENDPOINTS=$socket "$etcdctl" --command-timeout=1s endpoint status --write-out=json) || return 1
  case $status in
    *'"isLearner":true'*)
      look
      [ -n "$own" ] || return 1
      "$etcdctl" member promote "${own% *}" ;;
  esac
}
vote_when_possible() {
  last=$(($(now) + 600))
  until vote; do
    [ "$(now)" -lt "$last" ] || return 1
    sleep 1
  done
}
begin() {
  export ETCD_INITIAL_CLUSTER_STATE=existing
  if has_log; then
    ! goes_on || return 0
    # The task that does it was done when this was a member before.
    (vote_when_possible >/dev/null 2>&1 &)
  fi
  rm -rf "$data/member"
  look
  case $own in
    *" started")
      "$etcdctl" member remove "${own% *}"
      look ;;
  esac
  if [ -z "$own" ]; then
    "$etcdctl" member add "$self" --learner --peer-urls="$peer"
    look
  fi
  export ETCD_INITIAL_CLUSTER="${cluster%,}"
}
