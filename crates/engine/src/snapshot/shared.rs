//! Data of which several nodes have a copy, some less than others: the one that founds a fork gets the copy that has most.

use std::sync::Arc;

use bivouac_provider::Node;
use bivouac_spec::{Problem, Problems};
use bivouac_stacks::{Shared, Step};

use super::agent::Tally;
use super::copy::Copying;
use super::save::all_of;
use crate::steps::ask;
use crate::transfer::Transfer;

impl Copying<'_> {
    /// Asks all of them, and gives to the one what another has beside.
    pub(super) async fn share(&self, nodes: &[Arc<dyn Node>]) -> Result<(), Problems> {
        let Some(Shared { to, folder, ask }) = self.shared else { return Ok(()) };
        self.go_on()?;
        let asked = futures::future::join_all(ask.iter().map(|step| self.has(step))).await;
        let most = all_of(asked)?.into_iter().zip(ask).map(|(has, step)| (has, &step.nodes[0]));
        // Of those that have the same, itself.
        let most = most.max_by_key(|(has, node)| (has.clone(), *node == to));
        let Some((_, from)) = most.filter(|(_, node)| *node != to) else { return Ok(()) };
        let Some(node) = nodes.iter().find(|node| node.name() == to) else { return Ok(()) };
        let size = self.snapshot.nodes.get(from).copied().unwrap_or_default();
        let transfer = Transfer::new(format!("what {from} knows to {to}"), self.reporter);
        let tally = Tally::new(&transfer, size);
        let folders = std::slice::from_ref(folder);
        let filled =
            self.until_cancelled(self.fill_one(node.as_ref(), from, folders, &tally)).await;
        transfer.ended(filled.is_ok());
        Ok(filled?)
    }

    async fn has(&self, step: &Step) -> Result<Vec<u64>, Problem> {
        let (provider, cluster) = (self.request.provider.as_ref(), self.request.cluster.name());
        let said = ask(provider, cluster, &step.nodes[0], step).await?;
        let numbers: Result<Vec<u64>, _> = said.split_whitespace().map(str::parse).collect();
        match numbers {
            Ok(numbers) if !numbers.is_empty() => Ok(numbers),
            _ => {
                let message = format!("`{}` gave no numbers: {}", step.name, said.trim());
                Err(Problem::failed("fork.unclear", message).help(step.help.clone()))
            }
        }
    }
}
