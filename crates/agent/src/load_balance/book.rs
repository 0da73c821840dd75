//! The book: which Service has which address. Pure.
//!
//! What a Service has it keeps, also when all control planes started again; what it wants it gets, unless it is somebody else's; all
//! others get the lowest that is free. What Services say in their status counts as written in the book, so that a lost book harms nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bivouac_spec::AddressRange;

use super::object::Service;

/// Each address that is given, and to whom.
pub(super) type Book = BTreeMap<IpAddr, String>;

/// Why a Service gets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    NoAddress(String),
    NotOurs(IpAddr, String),
    OtherFamily(IpAddr),
    Taken(IpAddr, String),
    NoneLeft(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAddress(text) => write!(f, "`{text}` is no IP address"),
            Self::NotOurs(address, ranges) => {
                write!(f, "{address} is not for Services: choose one of {ranges}, or none")
            }
            Self::OtherFamily(address) => {
                write!(f, "{address} is of a family that the Service does not have")
            }
            Self::Taken(address, owner) => write!(
                f,
                "{address} is that of Service {owner}: an address is for one Service alone"
            ),
            Self::NoneLeft(ranges) => write!(f, "all addresses of {ranges} are taken"),
        }
    }
}

/// What can be given.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) ranges: Vec<AddressRange>,
    pub(super) except: BTreeSet<IpAddr>,
}

/// What each Service gets, and the book that says so.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) book: Book,
    pub(super) services: BTreeMap<String, Result<Vec<IpAddr>, Refusal>>,
}

impl Pool {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        !self.except.contains(&address) && self.ranges.iter().any(|range| range.contains(address))
    }

    fn text(&self, is_v4: Option<bool>) -> String {
        let fit = |range: &&AddressRange| is_v4.is_none_or(|is_v4| range.is_ipv4() == is_v4);
        let ranges = self.ranges.iter().filter(fit).map(ToString::to_string);
        ranges.collect::<Vec<_>>().join(", ")
    }

    /// Gives addresses. `book` is without those who are gone; whoever is in it and not among the Services was not seen yet.
    pub(super) fn give(&self, book: &Book, services: &BTreeMap<String, Service>) -> Given {
        let mut order: Vec<(&String, &Service)> = services.iter().collect();
        // Those who ask for an address before those who take any.
        order.sort_by_key(|(key, service)| (service.asked.is_empty(), &service.created, *key));
        let mut open = Open { pool: self, book: book.clone() };
        open.book.retain(|address, _| self.contains(*address));
        open.read_status(services);
        // What one gives back another may have asked for. Each round but the last one serves one more.
        let mut answers = open.serve_all(&order);
        for _ in &order {
            let before = open.book.clone();
            answers = open.serve_all(&order);
            if open.book == before {
                break;
            }
        }
        Given { book: open.book, services: answers }
    }
}

struct Open<'a> {
    pool: &'a Pool,
    book: Book,
}

impl Open<'_> {
    /// What the status says and the book does not, the older Service first.
    fn read_status(&mut self, services: &BTreeMap<String, Service>) {
        let mut order: Vec<(&String, &Service)> = services.iter().collect();
        order.sort_by_key(|(key, service)| (&service.created, *key));
        for (key, service) in order {
            for address in service.has.iter().filter(|address| self.pool.contains(**address)) {
                self.book.entry(*address).or_insert_with(|| key.clone());
            }
        }
    }

    fn serve_all(
        &mut self,
        order: &[(&String, &Service)],
    ) -> BTreeMap<String, Result<Vec<IpAddr>, Refusal>> {
        let mut answers = BTreeMap::new();
        for (key, service) in order {
            let answer = self.serve(key, service);
            let kept = answer.as_deref().unwrap_or_default();
            self.book.retain(|address, owner| owner != *key || kept.contains(address));
            self.book.extend(kept.iter().map(|address| (*address, (*key).clone())));
            answers.insert((*key).clone(), answer);
        }
        answers
    }

    fn serve(&self, key: &str, service: &Service) -> Result<Vec<IpAddr>, Refusal> {
        let mut asked = Vec::new();
        for wanted in &service.asked {
            let address = wanted.clone().map_err(Refusal::NoAddress)?;
            if !service.families.contains(&address.is_ipv4()) {
                return Err(Refusal::OtherFamily(address));
            }
            if !self.pool.contains(address) {
                return Err(Refusal::NotOurs(address, self.pool.text(None)));
            }
            match self.book.get(&address) {
                Some(owner) if owner != key => return Err(Refusal::Taken(address, owner.clone())),
                _ => asked.push(address),
            }
        }
        let of_family = |is_v4: &bool| {
            let wanted = asked.iter().find(|address| address.is_ipv4() == *is_v4).copied();
            let address = wanted.or_else(|| self.kept(key, *is_v4)).or_else(|| self.free(*is_v4));
            address.ok_or_else(|| Refusal::NoneLeft(self.pool.text(Some(*is_v4))))
        };
        service.families.iter().map(of_family).collect()
    }

    fn kept(&self, key: &str, is_v4: bool) -> Option<IpAddr> {
        let mut own = self.book.iter().filter(|(address, _)| address.is_ipv4() == is_v4);
        own.find(|(_, owner)| *owner == key).map(|(address, _)| *address)
    }

    fn free(&self, is_v4: bool) -> Option<IpAddr> {
        let ranges = self.pool.ranges.iter().filter(|range| range.is_ipv4() == is_v4);
        let mut all = ranges.flat_map(AddressRange::addresses);
        all.find(|one| self.pool.contains(*one) && !self.book.contains_key(one))
    }
}
