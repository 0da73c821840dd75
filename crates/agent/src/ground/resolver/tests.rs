//! The file, the rules, and both in network namespaces of their own.

use super::*;
use bivouac_sys::namespace::{Namespace, enter_fd, open_own, unshare};
use bivouac_sys::netlink::{Peer, RouteEntry, VethRequest};
use camino::Utf8PathBuf;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

#[test]
fn the_file_is_changed_once_and_read_again_after_a_restart() {
    let text = "search a.b\nnameserver 127.0.0.11\noptions ndots:0\n\n# of the engine\n";
    assert_eq!(behind(text, NODE.into()), Some(SERVER));
    let once = render_file(text, NODE.into(), SERVER);
    assert_eq!(
        once,
        "# bivouac passes questions on to 127.0.0.11\nnameserver 10.9.0.2\nsearch a.b\noptions ndots:0\n\n# of the engine\n"
    );
    assert_eq!(behind(&once, NODE.into()), Some(SERVER));
    assert_eq!(render_file(&once, NODE.into(), SERVER), once);
    for others in ["nameserver 10.88.0.1\n", "nameserver 10.9.0.2\n", "", "nameserver ::1\n"] {
        assert_eq!(behind(others, NODE.into()), None, "{others}");
    }
}

#[test]
fn the_rules_name_the_ports() {
    let server = Server { address: SERVER, udp: 40001, tcp: Some(40002) };
    assert_eq!(
        render_rules(NODE, server, &["eth0".to_owned()]),
        "table ip bivouac-resolver\n\
         delete table ip bivouac-resolver\n\
         table ip bivouac-resolver {\n\
         \tchain guard {\n\
         \t\ttype filter hook prerouting priority raw; policy accept;\n\
         \t\tiifname != \"lo\" ip daddr 127.0.0.0/8 drop\n\
         \t\tiifname != \"lo\" ip saddr 127.0.0.0/8 drop\n\
         \t}\n\
         \tchain pods {\n\
         \t\ttype nat hook prerouting priority -100; policy accept;\n\
         \t\tiifname != \"eth0\" ip daddr 10.9.0.2 udp dport 53 dnat to 127.0.0.11:40001\n\
         \t\tiifname != \"eth0\" ip daddr 10.9.0.2 tcp dport 53 dnat to 127.0.0.11:40002\n\
         \t}\n\
         \tchain node {\n\
         \t\ttype nat hook output priority -100; policy accept;\n\
         \t\tip daddr 10.9.0.2 udp dport 53 dnat to 127.0.0.11:40001\n\
         \t\tip daddr 10.9.0.2 tcp dport 53 dnat to 127.0.0.11:40002\n\
         \t}\n}\n"
    );
}

#[test]
fn a_socket_is_found_by_its_address() {
    let table = "  sl  local_address rem_address   st tx_queue\n\
                 1: 0B00007F:9C41 00000000:0000 07 0\n\
                 2: 0100007F:0035 00000000:0000 07 0\n\
                 3: 0B00007F:9C42 0B00007F:0035 01 0\n";
    assert_eq!(port_on(table, SERVER, None), Some(40001));
    assert_eq!(port_on(table, SERVER, Some("0A")), None);
    assert_eq!(port_on(table, Ipv4Addr::LOCALHOST, None), Some(53));
}

/// Ends the wait for an answer that never comes, and the one for an answer that does.
const SILENCE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(120);

fn ask(to: Ipv4Addr, patience: Duration) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(patience))?;
    socket.send_to(b"who?", (to, 53))?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Three network namespaces: a node, a pod of it, and the outside.
#[test]
fn pods_and_the_node_are_answered_and_the_outside_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let root = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.11\n").unwrap();
    std::thread::spawn(move || {
        let join = |node: &Route, name: &str, at: &str, address: &str| {
            let home = open_own(Namespace::Network).unwrap();
            unshare(&[Namespace::Network]).unwrap();
            let other = open_own(Namespace::Network).unwrap();
            let inner = Route::open().unwrap();
            node.create_veth(VethRequest {
                name,
                peer_name: "eth0",
                peer: Peer::Namespace(other.as_fd()),
                alias: "bivouac-test",
                mtu: None,
            })
            .unwrap();
            node.ensure_address(name, at.parse().unwrap()).unwrap();
            node.set_up(name, true).unwrap();
            inner.ensure_address("eth0", address.parse().unwrap()).unwrap();
            inner.set_up("eth0", true).unwrap();
            let gateway = at.split('/').next().unwrap().parse().ok();
            inner
                .ensure_route(&RouteEntry {
                    destination: "0.0.0.0/0".parse().unwrap(),
                    gateway,
                    interface: None,
                    protocol: 4,
                })
                .unwrap();
            enter_fd(home.as_fd(), Namespace::Network).unwrap();
            other
        };
        unshare(&[Namespace::Network]).unwrap();
        if let Err(error) = nft::list_tables() {
            println!("skipped: {error}: {}", error.cause());
            return;
        }
        let node = Route::open().unwrap();
        node.set_up("lo", true).unwrap();
        let outside = join(&node, "up", "10.9.0.2/24", "10.9.0.1/24");
        let pod = join(&node, "pod", "10.244.0.1/24", "10.244.0.2/24");
        let server = UdpSocket::bind((SERVER, 0)).unwrap();
        let secret = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
        let _listener = TcpListener::bind((SERVER, 0)).unwrap();

        let places = Places { root, ..Places::default() };
        let mut applied = Applied::default();
        ensure(NODE.into(), &places, &mut applied);
        assert_eq!(applied.changes, ["file /etc/resolv.conf"], "{applied:?}");
        ensure(NODE.into(), &places, &mut applied);
        assert_eq!((applied.changes.len(), applied.warnings.len()), (1, 0), "{applied:?}");
        let found = find(SERVER).unwrap();
        assert_eq!(found.udp, server.local_addr().unwrap().port());

        std::thread::spawn(move || {
            let mut question = [0; 64];
            while let Ok((_, from)) = server.recv_from(&mut question) {
                let _ = server.send_to(from.ip().to_string().as_bytes(), from);
            }
        });
        assert_eq!(ask(NODE, PATIENCE).unwrap(), NODE.to_string());
        enter_fd(pod.as_fd(), Namespace::Network).unwrap();
        assert_eq!(ask(NODE, PATIENCE).unwrap(), "10.244.0.2");
        enter_fd(outside.as_fd(), Namespace::Network).unwrap();
        assert!(ask(NODE, SILENCE).is_err(), "the outside is answered");
        // A host that sends loopback addresses over the wire.
        sysctl::write("net.ipv4.conf.all.route_localnet", "1").unwrap();
        let inner = Route::open().unwrap();
        inner
            .ensure_route(&RouteEntry {
                destination: "127.0.0.1/32".parse().unwrap(),
                gateway: Some(NODE.into()),
                interface: None,
                protocol: 4,
            })
            .unwrap();
        assert!(ask(Ipv4Addr::LOCALHOST, SILENCE).is_err());
        secret.set_nonblocking(true).unwrap();
        assert!(secret.recv(&mut [0; 64]).is_err(), "the guard lets loopback addresses in");
    })
    .join()
    .unwrap();
}

/// As above, in a node that has addresses of IPv6 alone.
#[test]
fn pods_of_the_other_family_are_answered_and_the_outside_is_not() {
    const NODE: Ipv6Addr = Ipv6Addr::new(0xfd62, 9, 0, 0, 0, 0, 0, 2);
    let ask = |patience| -> io::Result<String> {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(patience))?;
        socket.send_to(b"who?", (NODE, 53))?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    let directory = tempfile::tempdir().unwrap();
    let root = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.11\n").unwrap();
    std::thread::spawn(move || {
        unshare(&[Namespace::Network]).unwrap();
        if let Err(error) = nft::list_tables() {
            println!("skipped: {error}: {}", error.cause());
            return;
        }
        let home = open_own(Namespace::Network).unwrap();
        let node = Route::open().unwrap();
        node.set_up("lo", true).unwrap();
        let join = |name: &str, at: &str, address: &str| {
            unshare(&[Namespace::Network]).unwrap();
            let other = open_own(Namespace::Network).unwrap();
            let inner = Route::open().unwrap();
            // Addresses are used at once, and not only when nobody else is found to have them.
            for which in ["default", "all"] {
                sysctl::write(&format!("net.ipv6.conf.{which}.accept_dad"), "0").unwrap();
            }
            node.create_veth(VethRequest {
                name,
                peer_name: "eth0",
                peer: Peer::Namespace(other.as_fd()),
                alias: "bivouac-test",
                mtu: None,
            })
            .unwrap();
            node.ensure_address(name, at.parse().unwrap()).unwrap();
            node.set_up(name, true).unwrap();
            inner.ensure_address("eth0", address.parse().unwrap()).unwrap();
            inner.set_up("eth0", true).unwrap();
            let gateway = at.split('/').next().unwrap().parse().ok();
            inner
                .ensure_route(&RouteEntry {
                    destination: "::/0".parse().unwrap(),
                    gateway,
                    interface: None,
                    protocol: 4,
                })
                .unwrap();
            enter_fd(home.as_fd(), Namespace::Network).unwrap();
            other
        };
        for which in ["default", "all"] {
            sysctl::write(&format!("net.ipv6.conf.{which}.accept_dad"), "0").unwrap();
        }
        let outside = join("up", "fd62:9::2/64", "fd62:9::1/64");
        let pod = join("pod", "fd62:244::1/64", "fd62:244::2/64");
        let server = UdpSocket::bind((SERVER, 53)).unwrap();
        let listener = TcpListener::bind((SERVER, 53)).unwrap();

        let places = Places { root, ..Places::default() };
        let mut applied = Applied::default();
        ensure(NODE.into(), &places, &mut applied);
        assert_eq!(applied.changes, ["file /etc/resolv.conf"], "{applied:?}");
        ensure(NODE.into(), &places, &mut applied);
        assert_eq!((applied.changes.len(), applied.warnings.len()), (1, 0), "{applied:?}");

        std::thread::spawn(move || {
            let mut question = [0; 64];
            while let Ok((length, from)) = server.recv_from(&mut question) {
                let _ = server.send_to(&question[..length], from);
            }
        });
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = stream.try_clone().unwrap();
            let _ = io::copy(&mut reader, &mut stream);
        });
        assert_eq!(ask(PATIENCE).unwrap(), "who?");
        enter_fd(pod.as_fd(), Namespace::Network).unwrap();
        assert_eq!(ask(PATIENCE).unwrap(), "who?");
        let mut stream = std::net::TcpStream::connect((NODE, 53)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for message in [b"\0\x04who?", b"\0\x04why?"] {
            io::Write::write_all(&mut stream, message).unwrap();
            let mut answer = [0; 6];
            io::Read::read_exact(&mut stream, &mut answer).unwrap();
            assert_eq!(&answer, message);
        }
        enter_fd(outside.as_fd(), Namespace::Network).unwrap();
        assert!(ask(SILENCE).is_err(), "the outside is answered");
        // It is the guard that keeps it away.
        enter_fd(home.as_fd(), Namespace::Network).unwrap();
        nft::destroy_table("ip6", TABLE).unwrap();
        enter_fd(outside.as_fd(), Namespace::Network).unwrap();
        assert_eq!(ask(PATIENCE).unwrap(), "who?");
    })
    .join()
    .unwrap();
}
