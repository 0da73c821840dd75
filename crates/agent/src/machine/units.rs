//! All units by number. A number is never used again, so what is said of a unit that is gone can only be said of that one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use bivouac_spec::node::status::UnitKind;

use super::UnitId;
use super::definition::Definition;
use super::unit::Unit;

#[derive(Debug, Default)]
pub(super) struct Units {
    all: BTreeMap<UnitId, Unit>,
    /// Those of the config in its order, then those that are leaving.
    order: Vec<UnitId>,
    next: UnitId,
}

impl Units {
    pub(super) fn add(&mut self, definition: Arc<Definition>) -> UnitId {
        let id = self.next;
        self.next += 1;
        self.all.insert(id, Unit::new(definition));
        self.order.push(id);
        id
    }

    pub(super) fn remove(&mut self, id: UnitId) {
        self.all.remove(&id);
        self.order.retain(|other| *other != id);
        self.release(id);
    }

    /// Nobody waits for its end any more.
    pub(super) fn release(&mut self, id: UnitId) {
        for unit in self.all.values_mut() {
            unit.first.remove(&id);
        }
    }

    /// Units that need a unit as it is now. What already ends for a config before has no part in this graph: its own one counted
    /// when it began to.
    pub(super) fn users(&self, id: UnitId) -> Vec<UnitId> {
        let dependents = self[id].dependents.iter().copied();
        dependents.filter(|user| self[*user].is_wanted()).collect()
    }

    /// Has a unit be stopped after others, except where one of them already comes after it: configs that follow each other may
    /// contradict each other, and the one that was first counts.
    pub(super) fn stop_after(&mut self, id: UnitId, others: impl IntoIterator<Item = UnitId>) {
        for other in others {
            if !self.comes_after(other, id) {
                self[id].first.insert(other);
            }
        }
    }

    /// Whether a unit is stopped only after the other, or is the other.
    fn comes_after(&self, id: UnitId, other: UnitId) -> bool {
        let (mut seen, mut open) = (BTreeSet::from([id]), vec![id]);
        while let Some(id) = open.pop() {
            if id == other {
                return true;
            }
            open.extend(self[id].first.iter().copied().filter(|first| seen.insert(*first)));
        }
        false
    }

    pub(super) fn contains(&self, id: UnitId) -> bool {
        self.all.contains_key(&id)
    }

    pub(super) fn find(&self, name: &str, kind: UnitKind) -> Option<UnitId> {
        let is = |id: &&UnitId| self[**id].kind() == kind && self[**id].name() == name;
        self.order.iter().find(is).copied()
    }

    /// All numbers in order.
    pub(super) fn ids(&self) -> Vec<UnitId> {
        self.order.clone()
    }

    /// All units in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Unit> {
        self.order.iter().map(|id| &self[*id])
    }

    /// Puts these in front and makes them the graph; all others, which are leaving, have no part in it any more:
    /// [`Self::stop_after`] keeps what they come before.
    pub(super) fn arrange(&mut self, order: Vec<UnitId>) {
        let leaving = self.order.iter().filter(|id| !order.contains(id)).copied();
        let leaving: Vec<_> = leaving.collect();
        for unit in self.all.values_mut() {
            (unit.after, unit.dependents) = (Vec::new(), Vec::new());
        }
        let ids: BTreeMap<String, UnitId> =
            order.iter().map(|id| (self[*id].name().to_owned(), *id)).collect();
        for id in &order {
            let names = self[*id].definition.after().iter();
            let after: Vec<UnitId> = names.filter_map(|name| ids.get(name).copied()).collect();
            for other in &after {
                self[*other].dependents.push(*id);
            }
            self[*id].after = after;
        }
        self.order = order.into_iter().chain(leaving).collect();
    }
}

impl Index<UnitId> for Units {
    type Output = Unit;

    fn index(&self, id: UnitId) -> &Unit {
        &self.all[&id]
    }
}

impl IndexMut<UnitId> for Units {
    fn index_mut(&mut self, id: UnitId) -> &mut Unit {
        self.all.get_mut(&id).expect("asked for only while it is there")
    }
}
