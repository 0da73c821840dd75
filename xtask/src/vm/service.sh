# The unit of systemd that starts clusters, tried where systemd runs the machine: `before` its restart and `after` it.
set -eu
patience=$((600 * BIVOUAC_E2E_PATIENCE))
kept() {
    word=
    for _ in $(seq "$patience"); do
        word=$("$BIVOUAC" kubectl -c boot -- get configmap kept -o 'jsonpath={.data.word}') && break
        sleep 1
    done
    test "$word" = survived
}
case $1 in
before)
    "$BIVOUAC" up boot --no-kubeconfig --timeout "$patience"
    "$BIVOUAC" kubectl -c boot -- create configmap kept --from-literal=word=survived
    "$BIVOUAC" service install
    systemd-analyze verify /etc/systemd/system/bivouac.service
    systemctl restart bivouac.service
    systemctl is-active bivouac.service
    kept
    ;;
after)
    systemctl is-active bivouac.service
    systemctl status --no-pager bivouac.service
    kept
    "$BIVOUAC" up boot --no-kubeconfig --timeout "$patience"
    "$BIVOUAC" service uninstall
    "$BIVOUAC" down boot
    ;;
esac
