//! The test app of a benchmark: a web server of the node image behind a Service with a node port.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bivouac_spec::cluster::Role;
use bivouac_spec::{ClusterName, Problem};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::figures::Answers;
use crate::args::Global;
use crate::{access, selection};

/// The port of every node at which the app answers.
pub const NODE_PORT: u16 = 30_080;
const INTERVAL: Duration = Duration::from_millis(20);
/// A try that is not answered at once is given up: the kernel answers only so many refused tries a second, and the next try of a
/// connection that got no answer comes a second later, which would be measured instead of the app.
const CONNECT: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);

/// Deploys the app, and says when it answered and when a name was resolved in its pod.
///
/// # Errors
/// When the cluster refuses it, or nothing answers in time.
pub async fn ask(
    global: &Global,
    cluster: &ClusterName,
    started: Instant,
) -> Result<Answers, Problem> {
    let app = App::deploy(global, cluster).await?;
    app.answers().await?;
    let answers = Some(started.elapsed().as_secs_f64());
    app.resolves().await?;
    let dns = Some(started.elapsed().as_secs_f64());
    Ok(Answers { app: answers, dns, ..Answers::default() })
}

/// The deployed app.
struct App {
    plain: Agent,
    url: String,
}

impl App {
    /// Asks the cluster for the app, as its administrator. Does not wait for it.
    ///
    /// # Errors
    /// When the cluster cannot be reached or refuses.
    async fn deploy(global: &Global, cluster: &ClusterName) -> Result<Self, Problem> {
        let existing = selection::choose(global, Some(cluster)).await?;
        let kubeconfig = access::kubeconfig(global, &existing).await?;
        let cluster = &existing.known()?.applied.cluster;
        // Ports of a cluster file are those of the first control plane unless it says otherwise.
        let first = cluster.nodes().into_iter().find(|node| node.role == Role::ControlPlane);
        let first = first.ok_or_else(|| failed("the cluster has no control plane"))?;
        let address = existing.node(&first.name).await?.forward(NODE_PORT).await?;
        let image = crate::images::bundled_versions()?.remove("web").unwrap_or_default();
        let text = kubeconfig.render();
        let document: Value =
            yaml_serde::from_str(text.expose()).map_err(|error| failed(&error.to_string()))?;
        let client = Client::new(&document)?;
        let deploy = move || {
            client.create("/apis/apps/v1/namespaces/default/deployments", &deployment(&image))?;
            client.create("/api/v1/namespaces/default/services", &service())
        };
        tokio::task::spawn_blocking(deploy).await.map_err(|error| failed(&error.to_string()))??;
        let plain = Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(Duration::from_secs(2)))
            .build()
            .into();
        Ok(Self { plain, url: format!("http://{address}") })
    }

    /// Waits until the app answers a request.
    ///
    /// # Errors
    /// When it does not within two minutes.
    async fn answers(&self) -> Result<(), Problem> {
        self.until_success("").await
    }

    /// Waits until a name is resolved inside the app's pod.
    ///
    /// # Errors
    /// When it is not within two minutes.
    async fn resolves(&self) -> Result<(), Problem> {
        self.until_success("/resolve?name=kubernetes.default.svc.cluster.local").await
    }

    async fn until_success(&self, path: &str) -> Result<(), Problem> {
        let url = format!("{}{path}", self.url);
        let mut last = String::new();
        let asking = async {
            loop {
                let (agent, asked) = (self.plain.clone(), url.clone());
                let answer = tokio::task::spawn_blocking(move || agent.get(&asked).call()).await;
                match answer {
                    Ok(Ok(_)) => return,
                    Ok(Err(error)) => last = error.to_string(),
                    Err(error) => last = error.to_string(),
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        let within = tokio::time::timeout(PATIENCE, asking).await;
        within.map_err(|_| {
            failed(&format!("{url} did not answer within {} s; last: {last}", PATIENCE.as_secs()))
        })
    }
}

/// A client of the API server with the administrator's certificate.
struct Client {
    agent: Agent,
    server: String,
}

impl Client {
    fn new(kubeconfig: &Value) -> Result<Self, Problem> {
        let text = |pointer: &str| {
            kubeconfig
                .pointer(pointer)
                .and_then(Value::as_str)
                .ok_or_else(|| failed("the kubeconfig is incomplete"))
        };
        let pem = |pointer: &str| {
            STANDARD.decode(text(pointer)?).map_err(|error| failed(&error.to_string()))
        };
        let unusable = |error: ureq::Error| failed(&error.to_string());
        let authority = pem("/clusters/0/cluster/certificate-authority-data")?;
        let roots: Vec<Certificate<'static>> = parse_pem(&authority)
            .filter_map(|item| match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        let certificate = Certificate::from_pem(&pem("/users/0/user/client-certificate-data")?)
            .map_err(unusable)?;
        let key = PrivateKey::from_pem(&pem("/users/0/user/client-key-data")?).map_err(unusable)?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .client_cert(Some(ClientCert::new_with_certs(&[certificate], key)))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        Ok(Self { agent, server: text("/clusters/0/cluster/server")?.to_owned() })
    }

    fn create(&self, path: &str, object: &Value) -> Result<(), Problem> {
        let request = self
            .agent
            .post(format!("{}{path}", self.server))
            .header("content-type", "application/json");
        request
            .send(object.to_string())
            .map(drop)
            .map_err(|error| failed(&format!("{path}: {error}")))
    }
}

fn failed(why: &str) -> Problem {
    Problem::failed("cli.bench", format!("the test app: {why}"))
}

fn deployment(version: &str) -> Value {
    let container = json!({
        "name": "web", "image": format!("bivouac.dev/web:{version}"), "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {
            "type": "NodePort", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
        },
    })
}
