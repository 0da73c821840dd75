//! Gives addresses: brings the book and the status of Services to what [`super::book`] says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use bivouac_spec::Problem;
use sha2::{Digest, Sha256};

use super::api::{Api, Stored, Trouble};
use super::book::{Book, Given, Pool, Refusal};
use super::object::Service;
use super::{Log, spawn};

/// Before it is tried again, when the API gave no good answer.
const AGAIN: Duration = Duration::from_secs(1);

type Services = BTreeMap<String, Service>;

struct Allocator {
    api: Api,
    pool: Pool,
    log: Log,
    /// As it was read or written last.
    book: Option<Book>,
    /// What was said of whom.
    warned: BTreeMap<String, Refusal>,
}

/// Starts it. It is told of all Services whenever any of them changes.
pub(super) fn start(api: Api, pool: Pool, log: Log) -> Result<Sender<Services>, Problem> {
    let (sender, receiver) = channel();
    let mut allocator = Allocator { api, pool, log, book: None, warned: BTreeMap::new() };
    spawn("allocator", move || allocator.run(&receiver))?;
    Ok(sender)
}

impl Allocator {
    fn run(&mut self, receiver: &Receiver<Services>) {
        let (mut services, mut failed) = (Services::new(), None);
        loop {
            let news = match failed {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => receiver.recv_timeout(AGAIN),
            };
            match news {
                Ok(news) => services = news,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(latest) = receiver.try_iter().last() {
                services = latest;
            }
            match self.settle(&services) {
                Ok(()) => failed = None,
                Err(seen) => {
                    if failed.as_ref() != Some(&seen) {
                        (self.log)(&format!("addresses cannot be given: {seen}"));
                    }
                    failed = Some(seen);
                }
            }
        }
    }

    fn settle(&mut self, services: &Services) -> Result<(), String> {
        if self.is_settled(services) {
            return Ok(());
        }
        let given = self.agree(services)?;
        let mut settled = Ok(());
        for (key, answer) in &given.services {
            let service = &services[key];
            let addresses = answer.as_deref().unwrap_or_default();
            if let Err(refusal) = answer {
                self.warn(key, service, refusal);
            } else {
                self.warned.remove(key);
            }
            if service.has != addresses {
                // One that cannot be written keeps no other from its addresses.
                let published = self.publish(key, service, addresses);
                settled = settled.and(published.map_err(|seen| format!("Service {key}: {seen}")));
            }
        }
        self.warned.retain(|key, _| services.contains_key(key));
        settled
    }

    /// Whether there is nothing to do, as far as is known here.
    fn is_settled(&self, services: &Services) -> bool {
        let Some(book) = &self.book else { return services.is_empty() };
        let given = self.pool.give(book, services);
        given.book == *book
            && book.values().all(|owner| services.contains_key(owner))
            && given.services.iter().all(|(key, answer)| {
                services[key].has == answer.as_deref().unwrap_or_default()
                    && self.warned.get(key) == answer.as_ref().err()
            })
    }

    /// Reads the book, and writes it as it must be, until nobody else did so in between.
    fn agree(&mut self, services: &Services) -> Result<Given, String> {
        loop {
            let Stored { mut book, version } = self.api.read_book()?;
            let before = book.clone();
            let unseen: Vec<String> =
                book.values().filter(|owner| !services.contains_key(*owner)).cloned().collect();
            for owner in unseen {
                // Somebody else may have seen it before we did.
                if !self.api.service_is_there(&owner)? {
                    book.retain(|_, one| *one != owner);
                }
            }
            let given = self.pool.give(&book, services);
            if given.book != before {
                match self.api.write_book(&given.book, version.as_deref()) {
                    Ok(()) => {}
                    Err(Trouble::Conflict | Trouble::Absent) => continue,
                    Err(other) => return Err(other.into()),
                }
            }
            self.book = Some(given.book.clone());
            return Ok(given);
        }
    }

    fn publish(&self, key: &str, service: &Service, addresses: &[IpAddr]) -> Result<(), String> {
        match self.api.publish(key, service, addresses) {
            Ok(()) => {
                let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let words = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
                (self.log)(&format!("Service {key} has {words}"));
                Ok(())
            }
            // It is another one, or none, now: the watch says so.
            Err(Trouble::Conflict | Trouble::Absent) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    /// Says it in the log and, where that can be had, as an event of the Service.
    fn warn(&mut self, key: &str, service: &Service, refusal: &Refusal) {
        if self.warned.get(key) == Some(refusal) {
            return;
        }
        let text = refusal.to_string();
        (self.log)(&format!("Service {key} gets no address: {text}"));
        let mark = &hex::encode(Sha256::digest(format!("{} {text}", service.uid)))[..16];
        if let Err(seen) = self.api.warn(key, service, mark, &text) {
            (self.log)(&format!("Service {key} gets no event of that: {seen}"));
        }
        self.warned.insert(key.to_owned(), refusal.clone());
    }
}
