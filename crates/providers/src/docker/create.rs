//! Making a node: a volume that stays, and a container that is made anew from it whenever it does not run.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use bivouac_provider::{ImagePaths, ImageRequest, NodeRequest};
use bivouac_spec::Problem;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, MountType, MountVolumeOptions,
    VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, RemoveContainerOptions, RemoveVolumeOptions,
    StartContainerOptions, UploadToContainerOptions,
};
use bytes::Bytes;
use camino::Utf8Path;
use futures::FutureExt as _;

use super::container::{Binding, Blueprint, MODULES, Offer, own_addresses, port_name};
use super::engine::Engine;
use super::problem::{
    OrProblem as _, absent_is_success, explain, failed, is_image_gone, join, said, usage,
};
use super::remove::Removal;
use super::retry::{ATTEMPTS, given_up, next_offer};
use super::update::Change;
use super::{furnish, image, names, network};

/// How long a node may take to stop before another container takes its place.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// Devices that nodes want where the machine has them.
const DEVICES: [&str; 3] = ["/dev/kmsg", "/dev/fuse", "/dev/net/tun"];

/// A node that is being made.
pub(super) struct Making<'a> {
    pub(super) engine: &'a Engine,
    pub(super) provider: &'a str,
    pub(super) request: &'a NodeRequest,
}

impl Making<'_> {
    /// Makes the node and starts it. One that runs is made what it is to be.
    pub(super) async fn ensure(&self) -> Result<(), Problem> {
        let NodeRequest { cluster, node, image, agent, .. } = self.request;
        let name = names::node(cluster, node);
        let wanted = ImageRequest { image: image.clone(), agent: agent.clone() };
        let (before, network, volume, tag) = futures::join!(
            self.existing(&name),
            network::find(self.engine, cluster),
            self.known_volume(&name),
            image::tag_of(self.engine, &wanted),
        );
        let (before, volume) = (before?, volume?);
        if let Some(container) = &before
            && self.wake(Some(container), &name).await?
        {
            match self.change(container).await? {
                Change::None => return Ok(()),
                Change::InPlace => {
                    let machine_id = volume.clone().map_or_else(furnish::new_machine_id, Ok)?;
                    if self.update(container, self.deliver(machine_id).boxed()).await? {
                        return Ok(());
                    }
                    self.halt(&wanted).await?;
                }
                Change::Remake => self.halt(&wanted).await?,
            }
        }
        if network?.is_none() {
            return Err(failed("no_network", format_args!("cluster {cluster} has no network"))
                .help(format!("make it with `bivouac up {cluster}`")));
        }
        if before.is_some() {
            // Labels, ports and limits of a container cannot be changed; its data is on the volume.
            self.forget_changes().await?;
            self.replaceable(&name).await?;
        }
        let volume = match volume {
            Some(machine_id) => Data { machine_id, is_new: false },
            None => self.make_volume(&name).await?,
        };
        let made = self.make(&name, (&wanted, tag?), before.as_ref(), &volume).await;
        if made.is_err() {
            let _ = self.remove_container(&name).await;
            if volume.is_new {
                let _ = self.engine.docker.remove_volume(&name, None::<RemoveVolumeOptions>).await;
            }
        }
        made
    }

    /// Stops the node, for which everything is there that takes its place.
    pub(super) async fn halt(&self, wanted: &ImageRequest) -> Result<(), Problem> {
        image::ensure(self.engine, wanted, &|_| ()).await?;
        let NodeRequest { cluster, node, .. } = self.request;
        let Self { engine, provider, .. } = *self;
        Removal { engine, provider, cluster }.stop(node, GRACE).await
    }

    /// Puts the documents into the node, which runs.
    async fn deliver(&self, machine_id: String) -> Result<(), Problem> {
        let room = self.room();
        let documents = furnish::documents(self.request, &machine_id)?;
        let puts = documents.map(|(path, content)| {
            let content = Box::new(std::io::Cursor::new(content));
            room.put(Utf8Path::new(path), 0o600, content)
        });
        futures::future::try_join_all(puts).await.map(drop)
    }

    pub(super) async fn existing(
        &self,
        name: &str,
    ) -> Result<Option<ContainerInspectResponse>, Problem> {
        let found =
            self.engine.docker.inspect_container(name, None::<InspectContainerOptions>).await;
        let found = absent_is_success(found)
            .or_problem("container", format_args!("container {name} cannot be looked for"))?;
        let labels = found.as_ref().map(|it| it.config.as_ref()?.labels.as_ref());
        match labels {
            Some(labels) if !self.is_ours(labels) => Err(self.strange("container", name)),
            _ => Ok(found),
        }
    }

    /// Whether the container runs, which one that was paused does again.
    pub(super) async fn wake(
        &self,
        container: Option<&ContainerInspectResponse>,
        name: &str,
    ) -> Result<bool, Problem> {
        let state = container.and_then(|container| container.state.as_ref());
        if state.and_then(|state| state.paused) == Some(true) {
            let woken = self.engine.docker.unpause_container(name).await;
            woken.or_problem("unpause", format_args!("container {name} cannot be unpaused"))?;
            return Ok(true);
        }
        Ok(state.and_then(|state| state.running) == Some(true))
    }

    fn is_ours(&self, labels: Option<&std::collections::HashMap<String, String>>) -> bool {
        labels.is_some_and(|it| names::is_of(it, self.provider, &self.request.cluster))
    }

    fn strange(&self, kind: &str, name: &str) -> Problem {
        let message = format!("the {kind} {name} is none of cluster {}", self.request.cluster);
        usage("name_taken", message).help(format!(
            "rename the cluster, or look at the {kind} with `docker {kind} inspect {name}` and remove it"
        ))
    }

    pub(super) async fn remove_container(&self, name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        let removed = self.engine.docker.remove_container(name, Some(options)).await;
        absent_is_success(removed).map(drop)
    }

    /// The machine id of the node that lives on the volume, if there is one.
    async fn known_volume(&self, name: &str) -> Result<Option<String>, Problem> {
        let found = absent_is_success(self.engine.docker.inspect_volume(name).await);
        let found =
            found.or_problem("volume", format_args!("volume {name} cannot be looked for"))?;
        let Some(found) = found else { return Ok(None) };
        if !self.is_ours(Some(&found.labels)) {
            return Err(self.strange("volume", name));
        }
        let machine_id = found.labels.get(names::MACHINE_ID).cloned();
        // Without it somebody made the volume by hand, after our model.
        machine_id.map_or_else(furnish::new_machine_id, Ok).map(Some)
    }

    async fn make_volume(&self, name: &str) -> Result<Data, Problem> {
        let machine_id = furnish::new_machine_id()?;
        let mut labels =
            names::node_labels(self.provider, &self.request.cluster, &self.request.node);
        labels.insert(names::MACHINE_ID.to_owned(), machine_id.clone());
        let volume = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        let made = self.engine.docker.create_volume(volume).await;
        made.or_problem("volume", format_args!("volume {name} cannot be made"))?;
        Ok(Data { machine_id, is_new: true })
    }

    async fn make(
        &self,
        name: &str,
        (wanted, tag): (&ImageRequest, String),
        before: Option<&ContainerInspectResponse>,
        volume: &Data,
    ) -> Result<(), Problem> {
        let request = self.request;
        let archive = Bytes::from(furnish::archive(request, volume)?);
        let mut offer = offer(self.engine, &request.image)?;
        let mut tried = BTreeSet::new();
        let mut has_image = false;
        let mut bindings = self.bindings(before, &mut tried)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let blueprint = Blueprint {
                provider: self.provider,
                request,
                addresses: own_addresses(request)?,
                image: &tag,
                offer: &offer,
                bindings: &bindings,
            };
            let body = self.body(&blueprint, volume);
            let Err(error) = self.attempt(name, body, archive.clone()).await else {
                return Ok(());
            };
            let text = said(&error).to_owned();
            if let Err(other) = self.replaceable(name).await {
                // What struck first tells more than what it kept from being removed, which the next command finds by its labels.
                return join(vec![self.not_started(&error), other]);
            }
            if is_image_gone(&error) && !has_image {
                // Somebody removed it since it was brought.
                image::ensure(self.engine, wanted, &|_| ()).await?;
                has_image = true;
                continue;
            }
            let next = next_offer(&text, &offer, request).filter(|_| attempts < ATTEMPTS);
            if let Some(next) = next {
                // With nothing less, it is the ports that must change.
                if next == offer {
                    bindings = self.bindings(before, &mut tried)?;
                }
                offer = next;
                continue;
            }
            return Err(self.not_started(&error));
        }
    }

    /// The problem of a node that its engine did not start.
    fn not_started(&self, error: &Error) -> Problem {
        let NodeRequest { cluster, node, .. } = self.request;
        let message = format_args!("node {node} of cluster {cluster} cannot be started");
        given_up(said(error), explain("start", message, error))
    }

    /// Removes the container, so that another can take its name.
    async fn replaceable(&self, name: &str) -> Result<(), Problem> {
        self.remove_container(name)
            .await
            .or_problem("remove", format_args!("container {name} cannot be replaced"))
    }

    /// What the engine is asked for.
    fn body(&self, blueprint: &Blueprint<'_>, volume: &Data) -> ContainerCreateBody {
        let mut body = blueprint.render();
        let Some(host) = &mut body.host_config else { return body };
        if let (false, Some(daemon)) = (blueprint.offer.privileged, self.engine.local) {
            // Podman asks for more than an engine without all rights can give.
            host.ulimits = daemon.limits();
        }
        let data = host.mounts.iter_mut().flatten().find(|it| it.typ == Some(MountType::VOLUME));
        if let (true, Some(data)) = (volume.is_new, data) {
            // Copying what the image has there takes longer than all the rest; what nodes need of it goes with the documents.
            let options = MountVolumeOptions { no_copy: Some(true), ..Default::default() };
            data.volume_options = Some(options);
        }
        body
    }

    async fn attempt(
        &self,
        name: &str,
        body: ContainerCreateBody,
        archive: Bytes,
    ) -> Result<(), Error> {
        let docker = &self.engine.docker;
        let named = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        let made = docker.create_container(Some(named), body).await?;
        let root = UploadToContainerOptions { path: "/".to_owned(), ..Default::default() };
        docker.upload_to_container(&made.id, Some(root), bollard::body_full(archive)).await?;
        docker.start_container(&made.id, None::<StartContainerOptions>).await
    }

    /// Where the node's ports are on the host. One that was chosen once stays.
    pub(super) fn bindings(
        &self,
        before: Option<&ContainerInspectResponse>,
        tried: &mut BTreeSet<u16>,
    ) -> Result<Vec<Binding>, Problem> {
        let any = if self.engine.is_socket() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let mut bindings = Vec::new();
        for port in &self.request.ports {
            let known = before.and_then(|before| known_port(before, &port_name(port)));
            let host_port = match port.host_port {
                Some(number) => number,
                None => match known.filter(|number| tried.insert(*number)) {
                    Some(number) => number,
                    None => free_port(tried)?,
                },
            };
            let host_ip = port.host_ip.unwrap_or(any.into());
            bindings.push(Binding { port: port.clone(), host_ip, host_port });
        }
        Ok(bindings)
    }
}

/// The volume of a node.
pub(super) struct Data {
    /// The machine id of the node that lives on it.
    pub(super) machine_id: String,
    /// Nothing is on it yet.
    pub(super) is_new: bool,
}

/// The host port that a container was made with.
fn known_port(container: &ContainerInspectResponse, port: &str) -> Option<u16> {
    let bindings = container.host_config.as_ref()?.port_bindings.as_ref()?;
    bindings.get(port)?.as_ref()?.first()?.host_port.as_ref()?.parse().ok()
}

/// A port that is free here. On the machine of an engine elsewhere it most likely is, too, and another is tried if not.
fn free_port(tried: &mut BTreeSet<u16>) -> Result<u16, Problem> {
    let mut choose = || {
        loop {
            let number = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            if tried.insert(number) {
                return Ok::<_, std::io::Error>(number);
            }
        }
    };
    choose().map_err(|error| failed("no_port", "no port of the host is free").because(&error))
}

/// What the engine can give, as far as it can be told. What it turns out not to have is left out in the next attempt.
pub(super) fn offer(engine: &Engine, image: &ImagePaths) -> Result<Offer, Problem> {
    let Some(daemon) = engine.local else {
        let devices = vec![DEVICES[0].to_owned()];
        return Ok(Offer {
            privileged: true,
            devices,
            modules: true,
            shared_images: None,
            shared_cache: None,
        });
    };
    let ImagePaths { shared_images, shared_cache, .. } = image;
    for shared in [shared_images, shared_cache] {
        std::fs::create_dir_all(shared)
            .or_problem("folder", format_args!("the folder {shared} cannot be made"))?;
    }
    let devices = DEVICES.iter().filter(|path| Utf8Path::new(path).exists());
    Ok(Offer {
        privileged: daemon.raises_limits(),
        devices: devices.map(ToString::to_string).collect(),
        modules: Utf8Path::new(MODULES).exists(),
        shared_images: Some(shared_images.clone()),
        shared_cache: Some(shared_cache.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_never_tried_twice() {
        let mut tried = BTreeSet::new();
        for count in 1..=8 {
            let port = free_port(&mut tried).unwrap();
            assert!(port > 0 && tried.len() == count);
        }
    }
}
