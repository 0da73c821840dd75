//! Registries, the proxy, and what is kept of what the cluster file points to.

use bivouac_pki::Secret;
use bivouac_spec::cluster::Source;
use bivouac_spec::node::File;

use super::*;
use crate::stack::{Drain, Given, open_with};

const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

const SPEC: &str = r"
      registries:
        - host: docker.io
          mirrors:
            - url: https://mirror.example.com:5000/
              caFile: /ca.pem
              credentials: {username: puller, password: {environment: WORD}}
            - url: https://harbor.example.com/v2/hub
              insecure: true
            - {url: http://10.0.0.1:5000, insecure: true}
          credentials: {username: me, password: {file: /word}}
        - {host: 'registry.example.com:5000', insecure: true, caFile: /ca.pem}
        - host: ghcr.io
          onlyMirrors: true
          mirrors: [{url: https://mirror.example.com/ghcr}]
        - {host: '*', caFile: /ca.pem, mirrors: [{url: https://mirror.example.com/all}]}
      proxy:
        https: http://proxy.example.com:3128
        noProxy: [.example.com]
";

fn found(word: &str) -> BTreeMap<Source, Secret> {
    let file = |path: &str| Source::File(path.into());
    let sources = [
        (Source::Environment("WORD".to_owned()), word),
        (file("/word"), "file-word"),
        (file("/ca.pem"), AUTHORITY),
    ];
    sources.map(|(source, text)| (source, Secret::new(text))).into()
}

fn cluster(spec: &str) -> Cluster {
    let head = "apiVersion: bivouac.dev/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\n";
    let text = format!("{head}spec:\n  stack:\n    kubernetes:{spec}");
    bivouac_spec::cluster::parse(&text, "demo.yaml").unwrap()
}

fn bench(spec: &str, found: BTreeMap<Source, Secret>) -> Bench {
    let mut bench = Bench::new(vec![NodeGroup::new(Role::ControlPlane, 1)]);
    bench.cluster = cluster(spec);
    let given = Given { found, drain: None };
    bench.stack = open_with(&bench.cluster.spec.stack, given).unwrap();
    bench
}

fn registries(config: &NodeConfig) -> Vec<&File> {
    let below = |file: &&File| file.path.as_str().starts_with("/etc/containerd/certs.d/");
    config.files.iter().filter(below).collect()
}

fn text(file: &File) -> &str {
    let FileKind::Regular(Content(text)) = &file.kind else { panic!("{}", file.path) };
    text
}

#[test]
fn registries_are_rendered() {
    let bench = bench(SPEC, found("hunter2"));
    let configs = bench.configs();
    let config = &configs[&name("control-plane-0")];
    let files = registries(config);
    let mut rendered = String::new();
    for file in &files {
        rendered.push_str(&format!("# {} {:o}\n{}\n", file.path, file.mode, text(file)));
        if file.path.ends_with("hosts.toml") {
            assert_eq!(file.mode, 0o600, "{}", file.path);
            let table: toml::Table = text(file).parse().unwrap_or_else(|error| {
                panic!("{} is no TOML: {error}\n{}", file.path, text(file));
            });
            assert!(table.contains_key("host") || table.contains_key("server"));
        }
    }
    insta::assert_snapshot!("registries", rendered);
    let containerd = config.services.iter().find(|one| one.name == "containerd").unwrap();
    insta::assert_debug_snapshot!("proxy", containerd.environment);
    // They are read at each pull, so nothing is started again when they change.
    for service in &config.services {
        assert!(!service.watch.iter().any(|path| path.as_str().contains("certs.d")));
    }
}

#[test]
fn docker_is_where_containerd_knows_it() {
    let spec = "\n      registries:\n        - {host: docker.io, insecure: true}\n";
    let configs = bench(spec, BTreeMap::new()).configs();
    let files = registries(&configs[&name("control-plane-0")]);
    assert_eq!(files.iter().map(|file| text(file)).collect::<Vec<_>>(), ["skip_verify = true\n"]);
}

#[test]
fn passwords_are_shown_nowhere() {
    let bench = bench(SPEC, found("hunter2"));
    let keys = bench.keys(None, now());
    let configs = bench.render(&keys);
    let shown = format!("{keys:?} {configs:?} {:?}", bench.cluster);
    // `me:file-word` and `puller:hunter2`
    for secret in ["hunter2", "file-word", "bWU6ZmlsZS13b3Jk", "cHVsbGVyOmh1bnRlcjI="] {
        assert!(!shown.contains(secret), "{secret}");
    }
    for config in configs.values() {
        for service in &config.services {
            let words = format!("{:?} {:?}", service.command, service.environment);
            assert!(!words.contains("cHVsbGVyOmh1bnRlcjI="));
        }
    }
}

#[test]
fn what_was_found_once_is_known_ever_after() {
    let keys = bench(SPEC, found("hunter2")).keys(None, now());
    let nobody = bench(SPEC, BTreeMap::new());
    let kept = nobody.keys(Some(keys.clone()), now());
    assert_eq!(kept, keys, "nothing changes");
    assert_eq!(nobody.render(&kept), bench(SPEC, found("hunter2")).render(&keys));

    let newer = bench(SPEC, found("other"));
    let changed = newer.keys(Some(keys.clone()), now());
    assert_ne!(newer.render(&changed), nobody.render(&kept));

    let without = bench(" {}", BTreeMap::new()).keys(Some(keys), now());
    assert!(without.0.get("sources").is_none(), "what nobody names is forgotten");
}

#[test]
fn what_was_never_found_is_told() {
    let ensure = |found| {
        let bench = bench(SPEC, found);
        bench.stack.ensure_keys(None, &bench.request(), now()).unwrap_err()
    };
    let mut without = found("hunter2");
    without.remove(&Source::Environment("WORD".to_owned()));
    let problem = ensure(without);
    assert_eq!(problem.code, "stack.kubernetes.no_source");
    assert!(problem.message.contains("`WORD`"), "{problem}");
    let mut without = found("hunter2");
    without.remove(&Source::File("/ca.pem".into()));
    assert!(ensure(without).message.contains("/ca.pem"));
}

#[test]
fn authorities_that_are_none_are_refused() {
    let mut found = found("hunter2");
    found.insert(Source::File("/ca.pem".into()), Secret::new("hello"));
    let bench = bench(SPEC, found);
    let keys = bench.keys(None, now());
    let problem = bench.stack.render(&bench.request(), &keys).unwrap_err();
    assert_eq!(problem.code, "stack.kubernetes.bad_authorities");
}

#[test]
fn a_cache_is_asked_first_and_asks_as_containerd_would() {
    let cached = |spec: &str| format!("{spec}\n      imageCache: {{size: 5GiB}}\n");
    let bench = bench(&cached(SPEC), found("hunter2"));
    let configs = bench.configs();
    let config = &configs[&name("control-plane-0")];
    let file = config.files.iter().find(|file| file.path == "/etc/bivouac/image-cache.json");
    let file = file.unwrap();
    assert_eq!(file.mode, 0o600);
    let told: bivouac_spec::node::ImageCache = serde_json::from_str(text(file)).unwrap();
    insta::assert_snapshot!("cache", text(file).replace(&told.token.0, "TOKEN"));
    for file in registries(config).into_iter().filter(|file| file.path.ends_with("hosts.toml")) {
        let table: toml::Table = text(file).parse().unwrap();
        let hosts = table["host"].as_table().unwrap();
        let cache = &hosts["http://127.0.0.1:7445"];
        assert_eq!(cache["header"]["Bivouac-Cache-Token"].as_str(), Some(told.token.0.as_str()));
        let first = text(file).find("[host.").unwrap();
        assert!(
            text(file)[first..].starts_with("[host.\"http://127.0.0.1:7445\"]"),
            "{}",
            file.path
        );
    }
    let service = |config: &NodeConfig| {
        config.services.iter().find(|service| service.name == "image-cache").cloned()
    };
    let own = service(config).unwrap();
    insta::assert_debug_snapshot!("cache_service", (&own.command, &own.environment, &own.watch));

    // Every registry has it, also where the file names none.
    let configs = self::bench(&cached(""), BTreeMap::new()).configs();
    let files = registries(&configs[&name("control-plane-0")]);
    assert_eq!(files.len(), 1);
    assert!(files[0].path.ends_with("_default/hosts.toml"));
    assert!(!text(files[0]).contains("server"));
}

#[test]
fn nodes_that_share_no_folder_have_no_cache() {
    let mut bench = bench("\n      imageCache: {}\n", BTreeMap::new());
    let told = |bench: &Bench| {
        let keys = bench.keys(None, now());
        let configs = bench.render(&keys);
        let files = &configs[&name("control-plane-0")].files;
        files
            .iter()
            .find(|file| file.path.ends_with("image-cache.json"))
            .map(|it| text(it).to_owned())
    };
    let both = [told(&bench), told(&bench)];
    assert!(both[0].is_some() && both[0] != both[1], "each cluster has a token of its own");
    bench.facts.shares_images = false;
    assert_eq!(told(&bench), None);
    let configs = bench.configs();
    let config = &configs[&name("control-plane-0")];
    assert!(registries(config).is_empty());
    assert!(!config.services.iter().any(|service| service.name == "image-cache"));
}

#[test]
fn a_drain_takes_as_long_as_is_said() {
    let titles = |steps: &[Step]| steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
    let open = |drain| {
        let mut bench = Bench::several();
        let Chosen::Kubernetes(settings) = &mut bench.cluster.spec.stack else { panic!() };
        settings.drain_timeout = "90s".parse().unwrap();
        let given = Given { drain, ..Given::default() };
        bench.stack = open_with(&bench.cluster.spec.stack, given).unwrap();
        bench.leaves("worker-1")
    };
    let says = |steps: &[Step], word: &str| steps[0].command.contains(&word.to_owned());
    let (file, asked) = (open(None), open(Some(Drain::Within("5m".parse().unwrap()))));
    assert!(says(&file, "90s") && file[0].patience > Duration::from_secs(90));
    assert!(says(&asked, "300s") && asked[0].patience > Duration::from_secs(300));
    let none = open(Some(Drain::No));
    assert_eq!(titles(&none), titles(&file)[1..]);

    let incus = Chosen::Incus(Default::default());
    let given = Given { drain: Some(Drain::No), ..Given::default() };
    let refused = open_with(&incus, given).map(|stack| stack.describe()).unwrap_err();
    assert_eq!(refused.code, "stack.no_drain");
}
