//! Carries out a plan.
//!
//! ```text
//! image, network
//! starts         of nodes that are there: others may need them to agree
//! removals       of nodes that do not run, each after the others have let it go: who is left is sooner a majority
//! replacements   of nodes that keep the cluster's state and are lost: while one is missing, none of the others may stop or go
//! removals       of nodes that run, as before; the others are told that they are fewer afterwards
//! returns        of nodes that were to be removed: what the others have forgotten of them
//! updates        of nodes that run on: they must know what comes
//! remakes        of nodes that must stop for it; those that keep the cluster's state one after another, and for another node
//!                image all of them, in the plan's order: each is out of work before, and well before the next
//! new nodes      those that keep the cluster's state join one after another; all others at the same moment
//! ```
//!
//! Where nodes come and others go, and none of those keeps the cluster's state, removals are last: what runs on them finds a place.

use std::collections::{BTreeMap, BTreeSet};

use bivouac_plan::Action;
use bivouac_provider::{ImageRequest, NodeRequest};
use bivouac_spec::cluster::Role;
use bivouac_spec::facts::{Member, ObservedState};
use bivouac_spec::{Class, NodeName, Problem, Problems};
use bivouac_stacks::Change;
use tokio_util::sync::CancellationToken;

use crate::follow::{Until, follow_until, up_interrupted};
use crate::images::{bring_image, is_remade};
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
        self.start(&requests).await?;
        let (now, after_others) = self.removals();
        let (running, away): (Vec<_>, Vec<_>) = now.into_iter().partition(|node| self.runs(node));
        self.remove(&away).await?;
        self.replace(&requests).await?;
        self.remove(&running).await?;
        self.take_back().await?;
        self.update(&requests).await?;
        self.remake(&requests).await?;
        self.create(&requests).await?;
        self.remove(&after_others).await
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

    /// Who goes before anything is made, and who goes when that is done.
    fn removals(&self) -> (Vec<NodeName>, Vec<NodeName>) {
        let (removed, members) = (self.removed(), &self.prepared.state.applied.members);
        let keeps_state =
            |node: &NodeName| members.get(node).is_some_and(|one| one.spec.role.keeps_state());
        let makes_room_first = !self.created().is_empty() && !removed.iter().any(keeps_state);
        if makes_room_first { (Vec::new(), removed) } else { (removed, Vec::new()) }
    }

    fn runs(&self, node: &NodeName) -> bool {
        let observed = self.prepared.observed.as_ref();
        observed
            .and_then(|observed| observed.nodes.get(node))
            .is_some_and(|node| node.state == ObservedState::Running)
    }

    /// Whether nothing of it is there.
    fn is_gone(&self, node: &NodeName) -> bool {
        self.prepared.observed.as_ref().is_none_or(|observed| !observed.nodes.contains_key(node))
    }

    /// The wanted nodes that run at this moment.
    async fn running(&self) -> Result<BTreeSet<NodeName>, Problem> {
        let cluster = self.request.cluster.name();
        let observed = self.request.provider.observe().await?;
        let own = observed.into_iter().find(|observed| observed.name == *cluster);
        let nodes = own.into_iter().flat_map(|observed| observed.nodes);
        let runs = nodes.filter(|(name, node)| {
            node.state == ObservedState::Running && self.prepared.wanted.nodes.contains_key(name)
        });
        Ok(runs.map(|(name, _)| name).collect())
    }

    /// Starts what is there and stopped.
    async fn start(&self, requests: &Requests) -> Result<(), Problems> {
        let stopped = self.nodes(|action| matches!(action, Action::StartNode { .. }));
        self.ensure_all(requests, &stopped).await
    }

    /// Makes nodes known again that were to be removed.
    async fn take_back(&self) -> Result<(), Problems> {
        match &self.prepared.state.applied.returned {
            none if none.is_empty() => Ok(()),
            nodes => self.run(&Change::Returns(nodes)).await,
        }
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
        let lost = self.lost();
        let mut created = self.created();
        created.retain(|node| !lost.contains(node));
        let (joining, others): (Vec<_>, Vec<_>) =
            created.into_iter().partition(|node| self.joins(node));
        for node in &joining {
            self.join(requests, node).await?;
        }
        self.ensure_all(requests, &others).await
    }

    fn created(&self) -> Vec<NodeName> {
        self.nodes(|action| matches!(action, Action::CreateNode { .. }))
    }

    /// Whether it comes to others that keep the cluster's state.
    fn joins(&self, node: &NodeName) -> bool {
        self.prepared.state.applied.joined.contains(node)
            && self.role(node).is_some_and(Role::keeps_state)
    }

    /// Those that keep the cluster's state, did so when all of it was usable last, and are not there, or not whole.
    fn lost(&self) -> Vec<NodeName> {
        let completed = self.prepared.state.applied.completed.as_deref();
        let keepers = completed.iter().flat_map(|before| before.nodes());
        let keepers: BTreeSet<NodeName> =
            keepers.filter(|node| node.role.keeps_state()).map(|node| node.name).collect();
        let mut lost = self.created();
        lost.retain(|node| keepers.contains(node));
        lost
    }

    /// All who are gone are forgotten before the first of them comes back: etcd takes nobody in while one that it knows is away.
    async fn replace(&self, requests: &Requests) -> Result<(), Problems> {
        let lost = self.lost();
        let others = lost.iter().skip(1);
        for node in others.filter(|node| self.is_gone(node) && self.joins(node)) {
            self.run(&Change::Joins(node)).await?;
        }
        for node in &lost {
            if self.joins(node) {
                self.join(requests, node).await?;
            } else {
                self.ensure_all(requests, std::slice::from_ref(node)).await?;
                self.follow_services(node).await?;
            }
        }
        Ok(())
    }

    fn role(&self, node: &NodeName) -> Option<Role> {
        let nodes = self.request.cluster.nodes();
        nodes.into_iter().find(|one| one.name == *node).map(|node| node.role)
    }

    /// One node joins the others, and is one of them before the next does.
    async fn join(&self, requests: &Requests, node: &NodeName) -> Result<(), Problems> {
        // Whoever is there, though not whole, may have its data, and be one of them with it.
        if self.is_gone(node) {
            self.run(&Change::Joins(node)).await?;
        }
        self.ensure_all(requests, std::slice::from_ref(node)).await?;
        self.follow_services(node).await
    }

    async fn follow_services(&self, node: &NodeName) -> Result<(), Problems> {
        self.go_on()?;
        let cluster = self.request.cluster.name();
        let opened = self.request.provider.open_node(cluster, node).await?;
        let within = self.options.timeout;
        follow_until(Until::ServicesReady, &[opened], within, self.reporter, self.cancel).await
    }

    /// For another node image all of them one after another. Otherwise those that keep the cluster's state, then the others at once.
    async fn remake(&self, requests: &Requests) -> Result<(), Problems> {
        for node in self.nodes(is_remade) {
            self.remake_one(requests, &node).await?;
        }
        let remade = self.nodes(|action| {
            matches!(action, Action::UpdateNode { remakes: true, .. }) && !is_remade(action)
        });
        let keeps_state = |node: &NodeName| self.role(node).is_some_and(Role::keeps_state);
        let (keepers, others): (Vec<_>, Vec<_>) = remade.into_iter().partition(keeps_state);
        for node in &keepers {
            self.ensure_all(requests, std::slice::from_ref(node)).await?;
            self.follow_services(node).await?;
        }
        self.ensure_all(requests, &others).await
    }

    /// Who was remade before is well; this one gives its work to others, and gets some again when it is well, too.
    async fn remake_one(&self, requests: &Requests, node: &NodeName) -> Result<(), Problems> {
        let others = self.running().await?;
        let keepers = others
            .iter()
            .filter(|other| *other != node && self.role(other).is_some_and(Role::keeps_state));
        for keeper in keepers {
            self.follow_services(keeper).await?;
        }
        // What is taken back may not wait for those who do not want to leave. Where nothing was usable, nobody has work.
        let lives = self.prepared.state.applied.completed.is_some();
        if lives && !self.prepared.goes_back {
            self.run(&Change::Remakes(node)).await?;
        }
        self.ensure_all(requests, std::slice::from_ref(node)).await?;
        self.follow_services(node).await?;
        if lives {
            self.run(&Change::Remade(&[node])).await?;
        }
        self.reporter.report(Event::NodeUpdated { node: node.clone() });
        Ok(())
    }

    /// Runs the steps of a change in nodes that run.
    async fn run(&self, change: &Change<'_>) -> Result<(), Problems> {
        self.go_on()?;
        let (request, name) = (self.request, self.request.cluster.name());
        let steps = request.stack.steps(&self.prepared.state.render_request(), change)?;
        if steps.is_empty() {
            return Ok(());
        }
        let (provider, running) = (request.provider.as_ref(), self.running().await?);
        Ok(run_steps(provider, name, &running, &steps, self.reporter).await?)
    }

    /// Removes nodes that the cluster file does not have any more, each after the others have let it go.
    async fn remove(&self, removed: &[NodeName]) -> Result<(), Problems> {
        let (provider, cluster) = (self.request.provider.as_ref(), self.request.cluster.name());
        for node in removed {
            self.go_on()?;
            self.let_go(node).await?;
            provider.destroy_node(cluster, node).await?;
            self.record(|members| drop(members.remove(node)))?;
            self.reporter.report(Event::NodeRemoved { node: node.clone() });
        }
        Ok(())
    }

    /// The others let a node go. That is recorded before the node is removed: who is no member any more is not lost. Where the node is
    /// still there it is done again, since it may have come back to them. A cluster that never was usable, or is founded anew, has
    /// nobody to let go.
    async fn let_go(&self, node: &NodeName) -> Result<(), Problems> {
        let (request, cluster) = (self.request, self.request.cluster.name());
        let Some(state) = request.state.read(cluster)? else { return Ok(()) };
        if state.applied.completed.is_none() {
            return Ok(());
        }
        let Some(member) = state.applied.members.get(node).cloned() else { return Ok(()) };
        if member.left && self.is_gone(node) {
            return Ok(());
        }
        let running = self.running().await?;
        for keeper in running.iter().filter(|node| self.role(node).is_some_and(Role::keeps_state)) {
            // Who stays must be well before there are fewer.
            self.follow_services(keeper).await?;
        }
        let change =
            if self.is_gone(node) { Change::Lost(&member) } else { Change::Leaves(&member) };
        let steps = request.stack.steps(&self.prepared.state.render_request(), &change)?;
        run_steps(request.provider.as_ref(), cluster, &running, &steps, self.reporter).await?;
        self.record(|members| {
            members.insert(node.clone(), Member { left: true, ..member });
        })?;
        Ok(())
    }

    /// Changes what is recorded of the nodes that may be members.
    fn record(&self, change: impl FnOnce(&mut BTreeMap<NodeName, Member>)) -> Result<(), Problem> {
        let (state, cluster) = (self.request.state, self.request.cluster.name());
        let Some(mut recorded) = state.read(cluster)? else { return Ok(()) };
        change(&mut recorded.applied.members);
        state.write(&recorded)
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
