//! The addresses on this node's interface.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bivouac_spec::Problem;
use bivouac_sys::neighbour::announce;
use bivouac_sys::netlink::{Link, Route};

use super::book::Pool;
use super::{Log, failed};

pub(super) struct Interface {
    route: Route,
    link: Link,
    log: Log,
    /// What is on it of the pool.
    held: BTreeSet<IpAddr>,
    /// What failed when it was to be what is wanted last.
    said: Option<String>,
}

impl Interface {
    /// The one that has the node's own address.
    pub(super) fn open(own: IpAddr, pool: &Pool, log: Log) -> Result<Self, Problem> {
        let asked =
            |error: bivouac_sys::Error| failed("the node's network cannot be asked", &error);
        let route = Route::open().map_err(asked)?;
        let addresses = route.addresses().map_err(asked)?;
        let links = route.links().map_err(asked)?;
        let index = addresses.iter().find(|one| one.address.addr() == own).map(|one| one.link);
        let link = links.into_iter().find(|link| Some(link.index) == index).ok_or_else(|| {
            Problem::failed("agent.load_balance", format!("no interface has the address {own}"))
        })?;
        // Those of before this program was started again.
        let on_it = addresses.iter().filter(|one| one.link == link.index);
        let held = on_it.map(|one| one.address.addr()).filter(|one| pool.contains(*one)).collect();
        Ok(Self { route, link, log, held, said: None })
    }

    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.held.contains(&address)
    }

    /// Has these addresses, and no others of the pool. Says whether that is to be looked at once more: there are new ones, or something
    /// failed.
    pub(super) fn hold(&mut self, wanted: &BTreeSet<IpAddr>) -> bool {
        let mut failed = None;
        let lost: Vec<IpAddr> = self.held.difference(wanted).copied().collect();
        for address in lost {
            match self.route.destroy_address(&self.link.name, address.into()) {
                Ok(()) => {
                    self.held.remove(&address);
                    (self.log)(&format!("{address} is not here any more"));
                }
                Err(error) => failed = Some(error),
            }
        }
        let new: Vec<IpAddr> = wanted.difference(&self.held).copied().collect();
        for address in &new {
            match self.route.ensure_extra_address(&self.link.name, *address) {
                Ok(()) => {
                    self.held.insert(*address);
                    (self.log)(&format!("{address} is here"));
                    self.announce(*address);
                }
                Err(error) => failed = Some(error),
            }
        }
        // Said once, however often it is tried again.
        let said = failed.map(|error| told(&error));
        if let Some(said) = said.as_ref().filter(|said| self.said.as_ref() != Some(said)) {
            (self.log)(said);
        }
        self.said = said;
        !new.is_empty() || self.said.is_some()
    }

    /// Tells the neighbours of all of them once more.
    pub(super) fn announce_all(&self) {
        self.held.iter().for_each(|address| self.announce(*address));
    }

    fn announce(&self, address: IpAddr) {
        if let Err(error) = announce(&self.link, address) {
            (self.log)(&told(&error));
        }
    }
}

fn told(error: &bivouac_sys::Error) -> String {
    format!("{error}: {}", error.cause())
}
