//! What types cannot express: rules between values, and the syntax that Kubernetes asks for.

mod incus;
mod labels;
mod network;
mod nodes;
mod ports;
mod registries;
mod stack;

pub use nodes::NODES_MAX;

use super::path::{Locations, field, within};
use super::{Cluster, Kubernetes, Provider, Stack};
use crate::problem::Problem;
use crate::quantity::Span;

/// A broken rule.
#[derive(Debug)]
pub(super) struct Finding {
    path: String,
    /// What the rule looked at.
    scopes: Vec<String>,
    problem: Problem,
}

impl Finding {
    fn new(path: &str, code: &str, message: impl Into<String>) -> Self {
        let problem = Problem::usage(code, message);
        Self { path: path.to_owned(), scopes: vec![path.to_owned()], problem }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.problem = self.problem.help(help);
        self
    }

    /// The rule looked at everything below this path, too.
    fn scope(mut self, scope: &str) -> Self {
        self.scopes.push(scope.to_owned());
        self
    }

    /// Whether the rule looked at the value at `path`.
    pub(super) fn concerns(&self, path: &str) -> bool {
        self.scopes.iter().any(|scope| within(path, scope) || within(scope, path))
    }

    pub(super) fn into_problem(self, locations: &Locations) -> Problem {
        let mut problem = self.problem;
        problem.message = format!("`{}`: {}", self.path, problem.message);
        match locations.of(&self.path) {
            Some(location) => problem.at(location),
            None => problem,
        }
    }
}

/// Every broken rule.
pub(super) fn findings(cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_provider(&cluster.spec.provider, &mut findings);
    match &cluster.spec.stack {
        Stack::Kubernetes(kubernetes) => {
            check_kubernetes(kubernetes, &mut findings);
            registries::check(kubernetes, &mut findings);
            nodes::check_bootstrap(kubernetes.bootstrap, &cluster.spec.nodes, &mut findings);
        }
        Stack::Incus(incus) => incus::check(incus, &cluster.spec, &mut findings),
    }
    stack::check(&cluster.spec, &mut findings);
    nodes::check(&cluster.spec.nodes, &mut findings);
    labels::check(&cluster.spec.nodes, &mut findings);
    let count = nodes::total(&cluster.spec.nodes);
    network::check(&cluster.spec.network, count, &mut findings);
    ports::check(cluster, &mut findings);
    findings
}

fn check_provider(provider: &Provider, findings: &mut Vec<Finding>) {
    let (Provider::Docker(docker) | Provider::Compose(docker)) = provider else { return };
    if docker.context.as_ref().is_some_and(|context| context.trim().is_empty()) {
        let path = field(&field("spec.provider", provider.name()), "context");
        let message = "the name of a context must not be empty";
        let help = "Write a name that `docker context ls` shows, or remove the field.";
        findings.push(Finding::new(&path, "spec.empty_context", message).help(help));
    }
}

fn check_kubernetes(kubernetes: &Kubernetes, findings: &mut Vec<Finding>) {
    let supported = Kubernetes::VERSIONS;
    let (path, version) = ("spec.stack.kubernetes", &kubernetes.version);
    if !supported.contains(&version.as_str()) {
        let path = field(path, "version");
        let known = supported.join(" and ");
        let message = format!("Kubernetes `{version}` is not supported, only {known} are");
        let full = supported.iter().find(|supported| format!("v{version}") == **supported);
        let help = full.map_or_else(
            || format!("Write one of them, or remove the field for {}.", Kubernetes::VERSION),
            |full| format!("Write `{full}`, with the leading `v`."),
        );
        findings.push(Finding::new(&path, "spec.unsupported_version", message).help(help));
    }
    if kubernetes.drain_timeout == Span::millis(0) {
        let path = field(path, "drainTimeout");
        let message = "no pod leaves a node in no time";
        let help =
            "Write a time such as `2m`; `bivouac node remove --no-drain` does not wait for pods.";
        findings.push(Finding::new(&path, "spec.no_drain_timeout", message).help(help));
    }
    if let Err(reason) = labels::check_subdomain(&kubernetes.domain) {
        let path = field(path, "domain");
        let message = format!("`{}` is no DNS domain: {reason}", kubernetes.domain);
        let help = "Write lower-case DNS labels with dots between them: `cluster.local`.";
        findings.push(Finding::new(&path, "spec.invalid_domain", message).help(help));
    }
}
