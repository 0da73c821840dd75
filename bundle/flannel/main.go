// flannel is flannel's VXLAN and host-gw backends with Kubernetes as the only source of leases: it gives the nodes' pod
// networks routes to each other, and nothing else. Upstream's own main also wires etcd, clouds and packet filters.
//
// The environment's NODE_NAME names the node. Its pod network is the podCIDRs of its Node object.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/version"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/klog/v2"
)

var (
	kubeconfig   = flag.String("kubeconfig", "", "kubeconfig of one who may list, watch nodes and patch nodes/status")
	netConf      = flag.String("net-conf", "/etc/kube-flannel/net-conf.json", "flannel's network configuration")
	subnetFile   = flag.String("subnet-file", "/run/flannel/subnet.env", "where subnet and MTU are written when the network is up")
	iface        = flag.String("iface", "", "name or address of the interface to the other nodes (default: that of the default route)")
	publicIP     = flag.String("public-ip", "", "IPv4 address by which other nodes reach this one (default: the interface's)")
	publicIPv6   = flag.String("public-ipv6", "", "the same for IPv6")
	healthz      = flag.String("healthz-bind-address", "", "address and port of /healthz, answered once the network is up (default: none)")
	printVersion = flag.Bool("version", false, "print the version of flannel")
)

func main() {
	klog.InitFlags(nil)
	flag.Parse()
	if *printVersion {
		fmt.Println("flannel", version.Version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		klog.ErrorS(err, "flannel stops")
		klog.Flush()
		os.Exit(1)
	}
}

// run keeps the routes until the context ends. Device and routes stay: pods keep their network while flannel restarts.
func run(ctx context.Context) error {
	if err := waitForPodNetwork(ctx, os.Getenv("NODE_NAME")); err != nil {
		return err
	}
	leases, err := kube.NewSubnetManager(ctx, "", *kubeconfig, "flannel.alpha.coreos.com", *netConf, true)
	if err != nil {
		return err
	}
	config, err := leases.GetNetworkConfig(ctx)
	if err != nil {
		return err
	}
	families, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	public := ipmatch.PublicIPOpts{PublicIP: *publicIP, PublicIPv6: *publicIPv6}
	external, err := ipmatch.LookupExtIface(*iface, "", "", families, public)
	if err != nil {
		return err
	}
	chosen, err := backend.NewManager(ctx, leases, external).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var wait sync.WaitGroup
	network, err := chosen.RegisterNetwork(ctx, &wait, config)
	if err != nil {
		return err
	}
	lease := network.Lease()
	if err := leases.HandleSubnetFile(*subnetFile, config, false, lease.Subnet, lease.IPv6Subnet, network.MTU()); err != nil {
		return err
	}
	if err := serveHealth(); err != nil {
		return err
	}
	if err := leases.CompleteLease(ctx, lease, &wait); err != nil {
		return err
	}
	network.Run(ctx)
	if ctx.Err() == nil {
		return fmt.Errorf("the %s backend ended", config.BackendType)
	}
	wait.Wait()
	return nil
}

// waitForPodNetwork returns when the node has its podCIDR: flannel itself gives up at once on a node without one.
func waitForPodNetwork(ctx context.Context, node string) error {
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	named := fields.OneTermEqualSelector("metadata.name", node)
	nodes := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", named)
	_, err = watchtools.UntilWithSync(ctx, nodes, &v1.Node{}, nil, func(event watch.Event) (bool, error) {
		seen, is := event.Object.(*v1.Node)
		return is && seen.Spec.PodCIDR != "", nil
	})
	return err
}

// serveHealth opens the port only now: a refused connection says that the network is not up.
func serveHealth() error {
	if *healthz == "" {
		return nil
	}
	listener, err := net.Listen("tcp", *healthz)
	if err != nil {
		return err
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	go func() { klog.ErrorS(http.Serve(listener, nil), "the health port is closed") }()
	return nil
}
