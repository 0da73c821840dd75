//! What is known, and what follows from it: one thread has all of it, and is told of everything that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use bivouac_spec::Problem;
use bivouac_sys::process::{Signal, SignalFd, wait_readable};

use super::api::Api;
use super::book::Pool;
use super::holder::{line, standing};
use super::interface::Interface;
use super::object::{Node, Object, Service, Slice};
use super::peers::{self, Peers};
use super::watch::{News, Watch, watch};
use super::{LoadBalanceRequest, Log, allocator, failed, spawn};

/// When the neighbours are told a second time: whoever had the address before may just have answered for it.
const ONCE_MORE: Duration = Duration::from_secs(1);

const SERVICES: &str = "/api/v1/services?fieldSelector=spec.type%3DLoadBalancer";
const NODES: &str = "/api/v1/nodes";

enum Event {
    Services(News<Service>),
    Nodes(News<Node>),
    /// Of the EndpointSlices of a Service.
    Slices(String, News<Slice>),
    /// A node is lost, or back.
    Peer(String, bool),
    /// This program is to end.
    End,
}

struct State {
    own: String,
    port: u16,
    pool: Pool,
    api: Api,
    log: Log,
    sender: Sender<Event>,
    allocator: Option<Sender<BTreeMap<String, Service>>>,
    interface: Interface,
    peers: Peers,
    services: Option<BTreeMap<String, Service>>,
    nodes: Option<BTreeMap<String, Node>>,
    lost: BTreeSet<String>,
    /// Of Services whose traffic stays on the node where it arrives.
    slices: BTreeMap<String, Endpoints>,
    _services: Watch,
    node_watch: Option<Watch>,
}

struct Endpoints {
    slices: Option<BTreeMap<String, Slice>>,
    _watch: Watch,
}

pub(super) fn run(request: &LoadBalanceRequest, log: Log) -> Result<(), Problem> {
    let (sender, receiver) = channel();
    hear_signals(sender.clone())?;
    let mut state = State::open(request, log, sender)?;
    peers::listen(request.listen)?;
    state.follow(&receiver)
}

/// Makes events of the signals that end a service.
fn hear_signals(sender: Sender<Event>) -> Result<(), Problem> {
    let signals = SignalFd::open(&[Signal::TERM, Signal::INT])
        .map_err(|error| failed("signals cannot be heard", &error))?;
    spawn("signals", move || {
        // Whatever goes wrong here, it is safer to end than not to hear that.
        while let Ok(ready) = wait_readable(&[signals.as_fd()], None) {
            if ready[0] && !matches!(signals.read(), Ok(None)) {
                break;
            }
        }
        drop(sender.send(Event::End));
    })
}

impl State {
    fn open(
        request: &LoadBalanceRequest,
        log: Log,
        sender: Sender<Event>,
    ) -> Result<Self, Problem> {
        let pool = Pool { ranges: request.ranges.clone(), except: request.except.clone() };
        let api = Api::new(request.server, request.tls.clone());
        let interface = Interface::open(request.listen.ip(), &pool, Arc::clone(&log))?;
        let peer = sender.clone();
        // Nobody listens any more when the program ends.
        let peers = Peers::new(move |name, up| drop(peer.send(Event::Peer(name.to_owned(), up))));
        let services = start(&api, SERVICES.to_owned(), &log, &sender, Event::Services)?;
        let allocator = if request.allocate {
            Some(allocator::start(api.clone(), pool.clone(), Arc::clone(&log))?)
        } else {
            None
        };
        Ok(Self {
            own: request.node.to_string(),
            port: request.listen.port(),
            pool,
            api,
            log,
            sender,
            allocator,
            interface,
            peers,
            services: None,
            nodes: None,
            lost: BTreeSet::new(),
            slices: BTreeMap::new(),
            _services: services,
            node_watch: None,
        })
    }

    /// Until it is told to end.
    fn follow(&mut self, receiver: &Receiver<Event>) -> Result<(), Problem> {
        let mut again = false;
        loop {
            let event = if again {
                receiver.recv_timeout(ONCE_MORE)
            } else {
                receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match event {
                Ok(Event::End) => {
                    self.interface.hold(&BTreeSet::new());
                    return Ok(());
                }
                Ok(event) => {
                    let mut differs = self.learn(event);
                    // What came together is acted upon once.
                    let mut ends = false;
                    for event in receiver.try_iter() {
                        ends |= matches!(event, Event::End);
                        differs |= self.learn(event);
                    }
                    if ends {
                        drop(self.sender.send(Event::End));
                    } else if differs {
                        again |= self.act()?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.interface.announce_all();
                    again = self.act()?;
                }
                Err(error) => return Err(failed("nobody tells of changes", &error)),
            }
        }
    }

    /// Says whether anything is different now.
    fn learn(&mut self, event: Event) -> bool {
        match event {
            Event::Services(news) => {
                let differs = news.apply(&mut self.services);
                if differs && let (Some(allocator), Some(all)) = (&self.allocator, &self.services) {
                    // A thread that is gone has panicked, and said so.
                    let _ = allocator.send(all.clone());
                }
                differs
            }
            Event::Nodes(news) => news.apply(&mut self.nodes),
            Event::Slices(service, news) => match self.slices.get_mut(&service) {
                Some(endpoints) => news.apply(&mut endpoints.slices),
                None => false,
            },
            Event::End => false,
            Event::Peer(name, true) => {
                let was_lost = self.lost.remove(&name);
                if was_lost {
                    (self.log)(&format!("node {name} is back"));
                }
                was_lost
            }
            // Nobody would say that it is back.
            Event::Peer(name, false) if !self.peers.follows(&name) => false,
            Event::Peer(name, false) => {
                (self.log)(&format!("node {name} is lost"));
                self.lost.insert(name)
            }
        }
    }

    /// Makes true what follows from what is known. Says whether that is to be done once more: this node has an address that it did not
    /// have, or one could not be added or removed.
    fn act(&mut self) -> Result<bool, Problem> {
        let Some(services) = &self.services else { return Ok(false) };
        if !services.is_empty() && self.node_watch.is_none() {
            let nodes = start(&self.api, NODES.to_owned(), &self.log, &self.sender, Event::Nodes)?;
            self.node_watch = Some(nodes);
        }
        self.watch_endpoints()?;
        let (mut held, mut followed) = (BTreeSet::new(), BTreeMap::new());
        for (key, service) in self.services.iter().flatten() {
            for address in service.has.iter().filter(|one| self.pool.contains(**one)) {
                let Some(standing) = self.standing(key, service, *address) else {
                    // It stays as it is until all is known.
                    held.extend(Some(*address).filter(|one| self.interface.holds(*one)));
                    continue;
                };
                if standing.holds {
                    held.insert(*address);
                }
                for name in standing.follows {
                    let node = self.nodes.as_ref().and_then(|nodes| nodes.get(&name));
                    if let Some(ip) = node.and_then(|node| node.address) {
                        followed.insert(name, SocketAddr::new(ip, self.port));
                    }
                }
            }
        }
        for name in self.peers.follow(&followed)? {
            self.lost.remove(&name);
        }
        Ok(self.interface.hold(&held))
    }

    /// None while not all is known.
    fn standing(
        &self,
        key: &str,
        service: &Service,
        address: IpAddr,
    ) -> Option<super::holder::Standing> {
        let nodes = self.nodes.as_ref()?;
        let only = if service.local {
            let slices = self.slices.get(key)?.slices.as_ref()?;
            Some(slices.values().flat_map(|slice| slice.0.iter().cloned()).collect())
        } else {
            None
        };
        Some(standing(&line(address, nodes, only.as_ref()), &self.own, &self.lost))
    }

    /// Follows the endpoints of Services for which they matter, and of no others.
    fn watch_endpoints(&mut self) -> Result<(), Problem> {
        let services = self.services.iter().flatten();
        let local: BTreeSet<&String> =
            services.filter(|(_, service)| service.local).map(|(key, _)| key).collect();
        self.slices.retain(|key, _| local.contains(key));
        for key in local {
            if self.slices.contains_key(key) {
                continue;
            }
            let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
            let path = format!(
                "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
            );
            let service = key.clone();
            let event = move |news| Event::Slices(service.clone(), news);
            let watch = start(&self.api, path, &self.log, &self.sender, event)?;
            self.slices.insert(key.clone(), Endpoints { slices: None, _watch: watch });
        }
        Ok(())
    }
}

fn start<T: Object>(
    api: &Api,
    path: String,
    log: &Log,
    sender: &Sender<Event>,
    event: impl Fn(News<T>) -> Event + Send + 'static,
) -> Result<Watch, Problem> {
    let sender = sender.clone();
    watch(api, path, log, move |news| sender.send(event(news)).is_ok())
}
