//! Every certificate of a control plane node: what it says, and that its authority vouches for it.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bivouac_pki::*;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn requests() -> Vec<LeafRequest> {
    let node_addresses = addresses(&["10.9.0.2", "fd00:9::2"]);
    let service_addresses = addresses(&["10.96.0.1", "fd00:96::1"]);
    let control_plane = ControlPlane {
        node: "demo-control-plane-1",
        addresses: &node_addresses,
        service_addresses: &service_addresses,
        domain: "cluster.local",
        extra: &["api.example".to_owned(), "192.0.2.7".to_owned(), "localhost".to_owned()],
    };
    let kubelet = KubeletServing { node: "demo-worker-1", addresses: &node_addresses };
    vec![
        apiserver(&control_plane),
        apiserver_kubelet_client(),
        apiserver_etcd_client(),
        front_proxy_client(),
        etcd_server(&control_plane),
        etcd_peer(&control_plane),
        etcd_healthcheck_client(),
        controller_manager(),
        scheduler(),
        kube_proxy(),
        flannel(),
        joiner("demo-worker-1"),
        kubelet_client("demo-worker-1"),
        kubelet_serving(&kubelet),
        admin(),
        super_admin(),
    ]
}

fn der(pem: &str) -> Vec<u8> {
    parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

fn describe(pem: &str) -> String {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let mut text = format!("{} <- {}\n", certificate.subject(), certificate.issuer());
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    let usage = certificate.key_usage().unwrap().unwrap().value;
    writeln!(text, "  ca {}, {usage}", constraints.value.ca).unwrap();
    if let Some(extended) = certificate.extended_key_usage().unwrap() {
        let (server, client) = (extended.value.server_auth, extended.value.client_auth);
        writeln!(text, "  server {server}, client {client}").unwrap();
    }
    if let Some(names) = certificate.subject_alternative_name().unwrap() {
        let names = names.value.general_names.iter().map(|name| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                Ok(bytes) => IpAddr::from(bytes).to_string(),
                Err(_) => IpAddr::from(<[u8; 16]>::try_from(*bytes).unwrap()).to_string(),
            },
            other => panic!("unexpected {other}"),
        });
        writeln!(text, "  {}", names.collect::<Vec<_>>().join(" ")).unwrap();
    }
    let days = (certificate.validity().not_after.timestamp() - 1_800_000_000) / 86_400;
    writeln!(text, "  {days} days, {:?}", certificate.signature_algorithm.algorithm.to_id_string())
        .unwrap();
    text
}

#[test]
fn subjects_names_and_usages_are_those_of_kubeadm() {
    let validity = Validity::starting(now());
    let authorities = Authorities::generate(&validity).unwrap();
    let mut table = String::new();
    for signer in [Signer::Cluster, Signer::FrontProxy, Signer::Etcd] {
        table += &describe(&authorities.authority(signer).certificate);
    }
    for request in requests() {
        let issued = authorities.issue(&request, &validity).unwrap();
        table += &describe(&issued.certificate);
        assert_eq!(expires(&issued.certificate).unwrap(), now() + validity.leaf);
        assert!(issued.key.expose().starts_with("-----BEGIN PRIVATE KEY-----"));
    }
    insta::assert_snapshot!(table);
    assert!(authorities.service_account.public_key.starts_with("-----BEGIN PUBLIC KEY-----"));
    assert!(expires("nonsense").is_err());
}

#[test]
fn each_authority_vouches_for_its_own_and_no_other() {
    let validity = Validity::starting(now());
    let authorities = Authorities::generate(&validity).unwrap();
    let algorithms = [webpki::ring::ECDSA_P256_SHA256];
    let at =
        |time: SystemTime| UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap());
    for request in requests() {
        let leaf =
            CertificateDer::from(der(&authorities.issue(&request, &validity).unwrap().certificate));
        let leaf = webpki::EndEntityCert::try_from(&leaf).unwrap();
        let verify = |signer: Signer, usage: webpki::KeyUsage, time: SystemTime| {
            let anchor = CertificateDer::from(der(&authorities.authority(signer).certificate));
            let anchors = [webpki::anchor_from_trusted_cert(&anchor).unwrap()];
            leaf.verify_for_usage(&algorithms, &anchors, &[], at(time), usage, None, None).is_ok()
        };
        let server = request.usage != Usage::Client;
        let client = request.usage != Usage::Server;
        assert_eq!(verify(request.signer, webpki::KeyUsage::server_auth(), now()), server);
        assert_eq!(verify(request.signer, webpki::KeyUsage::client_auth(), now()), client);
        let usage = || {
            if server { webpki::KeyUsage::server_auth() } else { webpki::KeyUsage::client_auth() }
        };
        assert!(verify(request.signer, usage(), now() - Duration::from_secs(60)), "clocks differ");
        assert!(!verify(request.signer, usage(), now() + validity.leaf * 2), "expired");
        for other in [Signer::Cluster, Signer::FrontProxy, Signer::Etcd] {
            assert_eq!(verify(other, usage(), now()), other == request.signer);
        }
        let names = request.dns_names.iter().cloned();
        for name in names.chain(request.addresses.iter().map(ToString::to_string)) {
            leaf.verify_is_valid_for_subject_name(&ServerName::try_from(name).unwrap()).unwrap();
        }
    }
}

#[test]
fn files_of_a_node_are_complete_private_and_stable() {
    let validity = Validity::starting(now());
    let started = Instant::now();
    let mut pki = Pki::generate(&validity).unwrap();
    let node_addresses = addresses(&["10.9.0.2"]);
    let node = ControlPlane {
        node: "demo-1",
        addresses: &node_addresses,
        service_addresses: &[],
        domain: "cluster.local",
        extra: &[],
    };
    let files = control_plane_files(&mut pki, &node, &validity).unwrap();
    println!("authorities and certificates of a control plane: {:?}", started.elapsed());
    assert_eq!(control_plane_files(&mut pki, &node, &validity).unwrap(), files);
    let list = files.iter().map(|file| format!("{:o} {}", file.mode, file.path));
    insta::assert_snapshot!(list.collect::<Vec<_>>().join("\n"));
    for file in &files {
        assert_eq!(
            file.mode == 0o600,
            file.contents.expose().contains("PRIVATE KEY"),
            "{}",
            file.path
        );
    }
    assert_eq!(worker_files(&pki)[0].contents.expose(), pki.authorities.cluster.certificate);
}
