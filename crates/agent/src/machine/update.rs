//! Becoming the machine of another config: what is the same keeps its state, process and history.

use std::sync::Arc;
use std::time::Duration;

use bivouac_spec::NodeConfig;
use bivouac_spec::node::status::{UnitKind, UnitState};
use camino::Utf8PathBuf;

use super::definition::{self, Change, Definition};
use super::unit::Next;
use super::{Effect, Machine, UnitId};

impl Machine {
    /// Takes a config whose graph was checked; `touched` are files that changed. Units may start, also where none could before.
    ///
    /// What is stopped, is stopped after what needed it and is stopped too; what starts, starts after what it needs, as ever.
    pub(crate) fn update(
        &mut self,
        now: Duration,
        config: &NodeConfig,
        touched: &[Utf8PathBuf],
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.stopping {
            return effects;
        }
        let ids = self.units.ids().into_iter();
        let before: Vec<_> = ids.map(|id| (id, self.units.users(id))).collect();
        let mut order = Vec::new();
        for definition in definition::all_of(config) {
            match self.units.find(definition.name(), definition.kind()) {
                Some(id) => {
                    self.redefine(id, definition, touched, now, &mut effects);
                    order.push(id);
                }
                None => {
                    let id = self.units.add(definition);
                    effects.push(Effect::Prepare(id));
                    order.push(id);
                }
            }
        }
        for (id, _) in before.iter().filter(|(id, _)| !order.contains(id)) {
            self.dismiss(*id, &mut effects);
        }
        self.units.arrange(order);
        self.keep_order(before);
        (self.begun, self.was_usable) = (true, false);
        self.proceed(now, &mut effects);
        effects
    }

    /// What is being stopped now goes before what it needed until now, which may be stopped with it, by a later config or with the
    /// node.
    fn keep_order(&mut self, before: Vec<(UnitId, Vec<UnitId>)>) {
        for (id, mut users) in before {
            if self.units.contains(id) {
                let ends =
                    |id: UnitId| self.units.contains(id) && self.units[id].is_being_stopped();
                users.retain(|user| ends(*user));
                self.units.stop_after(id, users);
            }
        }
    }

    fn redefine(
        &mut self,
        id: UnitId,
        new: Arc<Definition>,
        touched: &[Utf8PathBuf],
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let unit = &mut self.units[id];
        let old = std::mem::replace(&mut unit.definition, new);
        let new = &unit.definition;
        // What already ends for a config before this one may not be what this one wants.
        let change =
            if unit.is_wanted() { old.change_to(new, touched) } else { Change::Everything };
        if change != Change::Everything {
            unit.stop = new.stop();
        }
        match change {
            Change::Nothing => {}
            Change::Question => {
                effects.push(Effect::Prepare(id));
                if matches!(unit.state, UnitState::Starting | UnitState::Ready) {
                    unit.renew();
                    unit.state = UnitState::Starting;
                    self.ask(id, now, effects);
                }
            }
            Change::Everything => {
                effects.push(Effect::Prepare(id));
                if old != *new {
                    unit.restarts = 0;
                }
                unit.ready_after = None;
                unit.backoff = new.restart().initial.duration();
                if unit.is_busy() {
                    self.retire(id, Next::Wait);
                } else {
                    unit.renew();
                    unit.state = UnitState::Waiting;
                }
            }
        }
    }

    fn dismiss(&mut self, id: UnitId, effects: &mut Vec<Effect>) {
        if self.units[id].is_busy() {
            if self.units[id].kind() == UnitKind::Task {
                effects.push(Effect::Cancel(id));
            }
            self.retire(id, Next::Leave);
        } else {
            self.units.remove(id);
            effects.push(Effect::Forget(id));
        }
    }

    /// Lets its process be stopped, or its work end.
    fn retire(&mut self, id: UnitId, next: Next) {
        let unit = &mut self.units[id];
        unit.next = next;
        if unit.kind() == UnitKind::Task {
            unit.state = UnitState::Stopping;
        } else if unit.state != UnitState::Stopping {
            unit.retiring = true;
        }
    }
}
