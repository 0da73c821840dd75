//! A published port of UDP: the host asks the cluster's DNS through it.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use bivouac_e2e::{Cluster, SOON, wait_until};

/// The port of all nodes that leads to the cluster's DNS.
pub(super) const NODE_PORT: u16 = 30053;
/// Any number, which the answer repeats.
const QUESTION: [u8; 2] = [0x62, 0x76];
/// A datagram that got lost is sent again after that.
const ANSWERED: Duration = Duration::from_secs(2);

/// The Service `web` is there.
pub(super) fn are_answered(cluster: &Cluster<'_>, port: u16) {
    cluster.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: names, namespace: kube-system}}
spec:
  type: NodePort
  selector: {{k8s-app: kube-dns}}
  ports: [{{port: 53, protocol: UDP, nodePort: {NODE_PORT}}}]
"
    ));
    let service = cluster.get(["service", "web"]);
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    let address: Ipv4Addr = address.parse().expect("a Service has an address");
    wait_until("the cluster's DNS answers the host", SOON, || {
        let answer = ask(port, "web.default.svc.cluster.local");
        let answer = answer.map_err(|error| format!("no answer: {error}"))?;
        // The last that is in an answer to such a question is the address.
        let is_it = answer.starts_with(&QUESTION) && answer.ends_with(&address.octets());
        if is_it { Ok(()) } else { Err(format!("{answer:x?}, and not {address}")) }
    });
}

/// Asks for the address of a name by one datagram (RFC 1035, section 4.1).
fn ask(port: u16, name: &str) -> std::io::Result<Vec<u8>> {
    const ONE_QUESTION: [u8; 10] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    const OF_INTERNET_ADDRESSES: [u8; 4] = [0, 1, 0, 1];
    let mut question = [&QUESTION[..], &ONE_QUESTION].concat();
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).map_err(std::io::Error::other)?);
        question.extend_from_slice(label.as_bytes());
    }
    question.push(0);
    question.extend_from_slice(&OF_INTERNET_ADDRESSES);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(ANSWERED))?;
    let _ = socket.send_to(&question, (Ipv4Addr::LOCALHOST, port))?;
    let mut answer = vec![0; 512];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}
