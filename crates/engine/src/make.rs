//! Carries out a plan.
//!
//! ```text
//! image, network
//! removals       first, where control planes go and others stay: those that stay are then told that they are fewer
//! updates        of nodes that run on: they must know what comes
//! remakes        of nodes that must stop for it; those that keep the cluster's state one after another
//! new nodes      those that keep the cluster's state join one after another; all others at the same moment
//! removals
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bivouac_plan::Action;
use bivouac_provider::{ImageRequest, NodeRequest};
use bivouac_spec::cluster::Role;
use bivouac_spec::facts::ObservedState;
use bivouac_spec::{Class, NodeName, Problem, Problems};
use bivouac_stacks::Change;
use tokio_util::sync::CancellationToken;

use crate::follow::{Until, follow_until, up_interrupted};
use crate::images::bring_image;
use crate::steps::run_steps;
use crate::{Event, PrepareRequest, Prepared, Reporter, UpOptions};

/// A plan that is being carried out.
pub(crate) struct Making<'a> {
    pub(crate) request: &'a PrepareRequest<'a>,
    pub(crate) options: &'a UpOptions,
    pub(crate) prepared: &'a Prepared,
    pub(crate) reporter: &'a Reporter,
    pub(crate) cancel: &'a CancellationToken,
}

/// Requests for nodes.
type Requests = BTreeMap<NodeName, NodeRequest>;

impl Making<'_> {
    /// Carries out all of it. The nodes are on their way to be usable then.
    pub(crate) async fn make(&self) -> Result<(), Problems> {
        let requests = self.furnish().await?;
        let shrinks_first = self.shrinks_first();
        if shrinks_first {
            self.remove().await?;
        }
        self.update(&requests).await?;
        self.remake(&requests).await?;
        self.create(&requests).await?;
        if !shrinks_first {
            self.remove().await?;
        }
        Ok(())
    }

    /// The node image and the network.
    async fn furnish(&self) -> Result<Requests, Problems> {
        let Self { request, options, prepared, reporter, cancel } = self;
        let provider = request.provider.as_ref();
        let image = request.images.ensure(&prepared.state.image, reporter, cancel).await?;
        self.go_on()?;
        let brought = ImageRequest { image: image.clone(), agent: options.agent.clone() };
        let ground = request.cluster.spec.provider.name();
        bring_image((ground, provider), &brought, reporter, cancel).await?;
        provider.ensure_network(&prepared.wanted.network).await?;
        self.go_on()?;
        Ok(prepared.wanted.requests(&image, &options.agent))
    }

    fn go_on(&self) -> Result<(), Problem> {
        if self.cancel.is_cancelled() { Err(up_interrupted()) } else { Ok(()) }
    }

    /// The nodes that some actions are about.
    fn nodes(&self, which: impl Fn(&Action) -> bool) -> Vec<NodeName> {
        let actions = self.prepared.plan.actions.iter().filter(|action| which(action));
        actions.filter_map(Action::node).cloned().collect()
    }

    fn removed(&self) -> Vec<NodeName> {
        self.nodes(|action| matches!(action, Action::DestroyNode { .. }))
    }

    /// Whether control planes go, and one that is there stays.
    fn shrinks_first(&self) -> bool {
        let Some(before) = &self.prepared.before else { return false };
        let removed = self.removed();
        let keepers = before.applied.cluster.nodes();
        let mut keepers = keepers.iter().filter(|node| node.role.keeps_state());
        let goes = |name: &NodeName| removed.contains(name);
        keepers.clone().any(|node| goes(&node.name))
            && keepers.any(|node| !goes(&node.name) && self.runs(&node.name))
    }

    fn runs(&self, node: &NodeName) -> bool {
        let observed = self.prepared.observed.as_ref();
        observed
            .and_then(|observed| observed.nodes.get(node))
            .is_some_and(|node| node.state == ObservedState::Running)
    }

    /// The nodes that run now, without those that are being removed.
    fn running(&self) -> BTreeSet<NodeName> {
        let removed = self.removed();
        let nodes = self.prepared.wanted.nodes.keys();
        nodes.filter(|node| self.runs(node) && !removed.contains(node)).cloned().collect()
    }

    async fn update(&self, requests: &Requests) -> Result<(), Problems> {
        let updated =
            self.nodes(|action| matches!(action, Action::UpdateNode { remakes: false, .. }));
        self.ensure_all(requests, &updated).await?;
        for node in updated {
            self.reporter.report(Event::NodeUpdated { node });
        }
        Ok(())
    }

    async fn create(&self, requests: &Requests) -> Result<(), Problems> {
        let started = self
            .nodes(|action| matches!(action, Action::CreateNode { .. } | Action::StartNode { .. }));
        let joins = |node: &NodeName| {
            let keeps_state = |role: Role| role.keeps_state();
            self.prepared.state.applied.joined.contains(node)
                && !self.exists(node)
                && self.role(node).is_some_and(keeps_state)
        };
        let (joining, others): (Vec<_>, Vec<_>) = started.into_iter().partition(joins);
        // Those that were stopped may be needed for others to join.
        let (founders, others): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|node| joining.is_empty() || self.exists(node));
        self.ensure_all(requests, &founders).await?;
        for node in &joining {
            self.join(requests, node).await?;
        }
        self.ensure_all(requests, &others).await
    }

    fn exists(&self, node: &NodeName) -> bool {
        self.prepared.observed.as_ref().is_some_and(|seen| seen.nodes.contains_key(node))
    }

    fn role(&self, node: &NodeName) -> Option<Role> {
        let nodes = self.request.cluster.nodes();
        nodes.into_iter().find(|one| one.name == *node).map(|node| node.role)
    }

    /// One node joins the others, and is one of them before the next does.
    async fn join(&self, requests: &Requests, node: &NodeName) -> Result<(), Problems> {
        let (request, name) = (self.request, self.request.cluster.name());
        let change = Change::Joins(node);
        let steps = request.stack.steps(&self.prepared.state.render_request(), &change)?;
        let provider = request.provider.as_ref();
        run_steps(provider, name, &self.running(), &steps, self.reporter).await?;
        let made = self.ensure_all(requests, std::slice::from_ref(node)).await;
        made?;
        self.follow_services(node).await
    }

    async fn follow_services(&self, node: &NodeName) -> Result<(), Problems> {
        self.go_on()?;
        let cluster = self.request.cluster.name();
        let opened = self.request.provider.open_node(cluster, node).await?;
        let within = self.options.timeout;
        follow_until(Until::ServicesReady, &[opened], within, self.reporter, self.cancel).await
    }

    /// Those that keep the cluster's state one after another, then the others at once.
    async fn remake(&self, requests: &Requests) -> Result<(), Problems> {
        let remade =
            self.nodes(|action| matches!(action, Action::UpdateNode { remakes: true, .. }));
        let keeps_state = |node: &NodeName| self.role(node).is_some_and(Role::keeps_state);
        let (keepers, others): (Vec<_>, Vec<_>) = remade.into_iter().partition(keeps_state);
        for node in &keepers {
            self.ensure_all(requests, std::slice::from_ref(node)).await?;
            self.follow_services(node).await?;
        }
        self.ensure_all(requests, &others).await
    }

    /// Removes what the cluster file does not have any more, each node after it was taken leave of.
    async fn remove(&self) -> Result<(), Problems> {
        let (request, cluster) = (self.request, self.request.cluster.name());
        let provider = request.provider.as_ref();
        let running = self.running();
        for node in self.removed() {
            self.go_on()?;
            self.take_leave(&running, &node).await?;
            provider.destroy_node(cluster, &node).await?;
            self.reporter.report(Event::NodeRemoved { node });
        }
        Ok(())
    }

    /// The others let a node go. That is recorded before the node is removed: whoever counts the members of the cluster afterwards
    /// must not take it for lost.
    async fn take_leave(
        &self,
        running: &BTreeSet<NodeName>,
        node: &NodeName,
    ) -> Result<(), Problems> {
        let (request, cluster) = (self.request, self.request.cluster.name());
        let Some(mut state) = request.state.read(cluster)? else { return Ok(()) };
        let Some(before) = state.completed_request().filter(|_| !running.is_empty()) else {
            return Ok(());
        };
        let steps = request.stack.steps(&before, &Change::Leaves(node))?;
        run_steps(request.provider.as_ref(), cluster, running, &steps, self.reporter).await?;
        if state.applied.forget(node) {
            request.state.write(&state)?;
        }
        Ok(())
    }

    /// Makes nodes what is asked for, all at once.
    async fn ensure_all(&self, requests: &Requests, nodes: &[NodeName]) -> Result<(), Problems> {
        self.go_on()?;
        let made = nodes.iter().filter_map(|node| requests.get(node)).map(|request| async move {
            self.request.provider.ensure_node(request).await?;
            if !self.runs(&request.node) {
                self.reporter.report(Event::NodeStarted { node: request.node.clone() });
            }
            Ok::<(), Problem>(())
        });
        let outcomes = futures::future::join_all(made).await;
        let any_made = outcomes.iter().any(Result::is_ok);
        let mut problems: Vec<Problem> = outcomes.into_iter().filter_map(Result::err).collect();
        let is_new = self.prepared.observed.is_none();
        if !problems.is_empty() && !any_made && is_new {
            // Else what was begun would look like a cluster whose nodes are lost. What it began with is what is told; what cannot be
            // removed is found by `down`.
            let _ = self.request.provider.destroy_cluster(self.request.cluster.name()).await;
        }
        if (any_made || !is_new)
            && let Some(first) = problems.first_mut()
        {
            first.class = Class::Partial;
        }
        Problems::check(problems)
    }
}
