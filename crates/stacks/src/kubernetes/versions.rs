//! The programs and container images of the node image that this stack relies on. `bundle/bundle.lock` pins them; a test holds
//! the two together.

/// What a container has before anything runs in it: a pod's namespaces.
pub(super) const PAUSE: &str = "bivouac.dev/pause:0.1.0";
/// Answers for the names of Services.
pub(super) const COREDNS: &str = "bivouac.dev/coredns:1.15.0";
/// Makes volumes out of folders.
pub(super) const LOCAL_PATH: &str = "bivouac.dev/local-path-provisioner:0.0.30";
/// Answers what pods and nodes use.
pub(super) const METRICS_SERVER: &str = "bivouac.dev/metrics-server:0.9.0";
/// Where kubeadm finds the images of Kubernetes, with the version as their tag, and those of etcd and DNS.
pub(super) const REPOSITORY: &str = "bivouac.dev";
/// The tag of etcd's image.
pub(super) const ETCD: &str = "3.6.16";
/// A shell for the pods that make and remove those folders.
pub(super) const BUSYBOX: &str = "bivouac.dev/busybox:1.37.0";

/// Where the programs of Kubernetes, containerd and etcd lie.
pub(super) const PROGRAMS: &str = "/usr/local/bin";
/// runc is a tool of containerd's, not of people.
pub(super) const RUNC: &str = "/usr/local/sbin/runc";
/// Where the CNI plugins lie.
pub(super) const CNI_PLUGINS: &str = "/opt/cni/bin";

/// The tag of the image that answers for the names of Services.
pub(super) fn dns_tag() -> &'static str {
    COREDNS.rsplit_once(':').map_or(COREDNS, |(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> toml::Table {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bundle/bundle.lock");
        std::fs::read_to_string(path).unwrap().parse().unwrap()
    }

    fn entries(bundle: &toml::Table, kind: &str) -> Vec<toml::Table> {
        let entries = bundle[kind].as_array().unwrap().iter();
        entries.map(|entry| entry.as_table().unwrap().clone()).collect()
    }

    #[test]
    fn images_are_those_of_the_bundle() {
        let bundle = bundle();
        let programs = entries(&bundle, "program");
        let pinned: Vec<String> = entries(&bundle, "image")
            .iter()
            .map(|image| {
                let program = programs.iter().find(|one| one["name"] == image["program"]).unwrap();
                let (name, version) = (image["name"].as_str(), program["version"].as_str());
                let tag = image.get("tag").and_then(|tag| tag.as_str()).unwrap_or("{version}");
                format!("{}:{}", name.unwrap(), tag.replace("{version}", version.unwrap()))
            })
            .collect();
        let mut wanted =
            [PAUSE, COREDNS, LOCAL_PATH, METRICS_SERVER, BUSYBOX].map(str::to_owned).to_vec();
        let version = bivouac_spec::cluster::Kubernetes::VERSION;
        for program in ["apiserver", "controller-manager", "scheduler", "proxy"] {
            wanted.push(format!("{REPOSITORY}/kube-{program}:{version}"));
        }
        wanted.push(format!("{REPOSITORY}/etcd:{ETCD}"));
        wanted.push(format!("{REPOSITORY}/coredns:{}", dns_tag()));
        for image in wanted {
            assert!(pinned.contains(&image), "{image} is not among {pinned:?}");
        }
    }

    #[test]
    fn programs_lie_where_the_bundle_puts_them() {
        let bundle = bundle();
        let mut paths = Vec::new();
        for program in entries(&bundle, "program") {
            let Some(files) = program.get("files").and_then(|files| files.as_table()) else {
                continue;
            };
            paths.extend(files.keys().map(|path| format!("/{path}")));
            for (path, links) in
                program.get("links").and_then(|links| links.as_table()).into_iter().flatten()
            {
                let folder = path.rsplit_once('/').unwrap().0;
                let links = links.as_array().unwrap().iter();
                paths.extend(links.map(|link| format!("/{folder}/{}", link.as_str().unwrap())));
            }
        }
        let programs = [
            "etcd",
            "etcdctl",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubeadm",
            "kubectl",
            "flanneld",
            "containerd",
            "containerd-shim-runc-v2",
        ];
        let plugins = ["ptp", "host-local", "portmap"].map(|name| format!("{CNI_PLUGINS}/{name}"));
        let wanted = programs.map(|name| format!("{PROGRAMS}/{name}"));
        for path in wanted.into_iter().chain(plugins).chain([RUNC.to_owned()]) {
            assert!(paths.contains(&path), "{path} is not among {paths:?}");
        }
    }

    #[test]
    fn the_versions_are_those_of_the_bundle() {
        let programs = entries(&bundle(), "program");
        let kube = programs.iter().find(|one| one["name"].as_str() == Some("kube")).unwrap();
        let version = |entry: &toml::Table| format!("v{}", entry["version"].as_str().unwrap());
        let others = entries(kube, "other");
        let versions: Vec<String> = std::iter::once(kube).chain(&others).map(version).collect();
        assert_eq!(bivouac_spec::cluster::Kubernetes::VERSIONS[..], versions);
    }
}
