//! A node of this provider.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use bivouac_provider::{ExecRequest, LogRequest, Node, Process, Reader, Stdio};
use bivouac_spec::node::stream::Answer;
use bivouac_spec::{ClusterName, NodeName, Problem};
use bollard::query_parameters::InspectContainerOptions;
use camino::Utf8Path;
use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::engine::Engine;
use super::exec::{Manner, Room, Running, localized};
use super::problem::{OrProblem as _, failed, usage};
use super::{logs, terminal};

/// How long a node may take to answer to a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node, running or not.
pub(super) struct DockerNode {
    pub(super) engine: Arc<Engine>,
    pub(super) cluster: ClusterName,
    pub(super) name: NodeName,
    pub(super) address: IpAddr,
    pub(super) room: Room,
}

impl fmt::Debug for DockerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerNode").field("room", &self.room).finish_non_exhaustive()
    }
}

/// The agent's arguments for this command.
pub(super) fn exec_arguments(request: &ExecRequest, option: Option<&str>) -> Vec<String> {
    let mut arguments = vec!["exec".to_owned()];
    arguments.extend(option.map(str::to_owned));
    for (name, value) in &request.environment {
        arguments.extend(["--env".to_owned(), format!("{name}={value}")]);
    }
    arguments.push("--".to_owned());
    arguments.extend(request.command.iter().cloned());
    arguments
}

#[async_trait]
impl Node for DockerNode {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    async fn exec(&self, request: &ExecRequest) -> Result<Process, Problem> {
        if request.stdio == Stdio::Inherited {
            return terminal::exec(&self.room, request).await;
        }
        let input = request.stdio == Stdio::Piped;
        let arguments = exec_arguments(request, (!input).then_some("--no-input"));
        let running = self.room.run(arguments, Manner { answers: true, input }).await?;
        let Running { stdin, stdout, stderr, end } = running;
        let exit = ended(end).boxed();
        Ok(Process { stdin, stdout: Some(stdout), stderr: Some(stderr), exit })
    }

    async fn put(&self, path: &Utf8Path, mode: u32, content: Reader) -> Result<(), Problem> {
        self.check(path)?;
        self.room.put(path, mode, content).await
    }

    async fn get(&self, path: &Utf8Path) -> Result<Reader, Problem> {
        self.check(path)?;
        let arguments = ["get".to_owned(), path.to_string()];
        self.read(arguments).await
    }

    async fn logs(&self, request: &LogRequest) -> Result<Reader, Problem> {
        let mut arguments = vec!["logs".to_owned()];
        arguments.extend(request.service.clone());
        if let Some(lines) = request.tail {
            arguments.extend(["--tail".to_owned(), lines.to_string()]);
        }
        arguments.extend(request.follow.then(|| "--follow".to_owned()));
        match self.read(arguments).await {
            Err(problem) if problem.code == "provider.docker.not_running" => {
                logs::of_stopped(&self.room, request).await
            }
            other => other,
        }
    }

    async fn forward(&self, port: u16) -> Result<SocketAddr, Problem> {
        if let Some((ip, number)) = self.published(port).await? {
            // What is bound to every address of the engine's host, or to its loopback, is asked for there.
            let elsewhere = !self.engine.is_socket() && ip.is_loopback();
            let at_host = ip.is_unspecified() || elsewhere;
            let ip = if at_host { self.engine.host(ip.is_ipv6())? } else { ip };
            return Ok(SocketAddr::new(ip, number));
        }
        let direct = SocketAddr::new(self.address, port);
        if self.engine.local.is_some() && is_near(direct).await {
            return Ok(direct);
        }
        let message = format!("port {port} of node {} cannot be reached from here", self.name);
        Err(failed("not_published", message)
            .help("publish it with `ports` in the spec of the cluster file"))
    }
}

impl DockerNode {
    fn check(&self, path: &Utf8Path) -> Result<(), Problem> {
        if path.is_absolute() {
            return Ok(());
        }
        Err(usage("path", format_args!("{path} is no absolute path in node {}", self.name)))
    }

    async fn read(&self, arguments: impl IntoIterator<Item = String>) -> Result<Reader, Problem> {
        // Without frames: what it reads of its input is only whether that ends.
        let running = self.room.run(arguments, Manner { answers: true, input: false }).await?;
        Ok(Box::new(Reading { output: running.stdout, end: Some(running.end) }))
    }

    /// Where the node's port is published.
    async fn published(&self, port: u16) -> Result<Option<(IpAddr, u16)>, Problem> {
        let message = format!("node {} of cluster {} cannot be looked at", self.name, self.cluster);
        let container = &self.room.container;
        let found =
            self.engine.docker.inspect_container(container, None::<InspectContainerOptions>).await;
        let found = self.room.running(found, &message)?;
        let bindings = found.host_config.and_then(|host| host.port_bindings).unwrap_or_default();
        let binding = bindings.get(&format!("{port}/tcp")).cloned().flatten().unwrap_or_default();
        Ok(binding.into_iter().find_map(|place| {
            let ip = place.host_ip.filter(|ip| !ip.is_empty());
            let ip = ip.map_or(Some(IpAddr::from([0, 0, 0, 0])), |ip| ip.parse().ok())?;
            Some((ip, place.host_port?.parse().ok()?))
        }))
    }
}

impl Room {
    /// Writes a file of root's, whole or not at all.
    pub(super) async fn put(
        &self,
        path: &Utf8Path,
        mode: u32,
        mut content: Reader,
    ) -> Result<(), Problem> {
        let arguments = ["put".to_owned(), path.to_string(), format!("{mode:04o}")];
        let mut running = self.run(arguments, Manner { answers: false, input: true }).await?;
        let message = || format!("{path} cannot be written in node {}", self.node);
        let mut stdin = running.stdin.take().ok_or_else(|| failed("put", message()))?;
        match tokio::io::copy(&mut content, &mut stdin).await {
            // The agent has stopped listening, and says why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                // The input must not come to a good end, which it does when it is dropped.
                running.end.abort();
                let _ = running.end.await;
                drop(stdin);
                return Err(error)
                    .or_problem("put", format_args!("what {path} is to hold cannot be read"));
            }
            _ => drop(stdin),
        }
        let mut said = String::new();
        let read = running.stderr.read_to_string(&mut said).await;
        read.or_problem("put", message())?;
        if ended(running.end).await? == 0 {
            return Ok(());
        }
        match Answer::parse(said.trim_end()) {
            Some(Answer::Problem(problem)) => Err(localized(problem)),
            _ => {
                let mut problem = failed("put", message());
                problem.causes.push(said.trim().to_owned());
                Err(problem)
            }
        }
    }
}

/// Whether somebody is at this address, listening or not.
async fn is_near(address: SocketAddr) -> bool {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

/// The exit code, when the command has ended. Dropping this ends the command.
pub(super) async fn ended(end: AbortOnDropHandle<Result<i32, Problem>>) -> Result<i32, Problem> {
    end.await.map_err(|error| failed("exec", "a command was given up").because(&error))?
}

/// What a command reads for us. What it could not read to its end is an error, not a short file.
pub(super) struct Reading {
    pub(super) output: Reader,
    pub(super) end: Option<AbortOnDropHandle<Result<i32, Problem>>>,
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.output).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(end) = &mut self.end else { return Poll::Ready(Ok(())) };
        let ended = std::task::ready!(Pin::new(end).poll(context));
        self.end = None;
        Poll::Ready(match ended {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(code)) => Err(io::Error::other(format!("reading ended with {code}"))),
            Ok(Err(problem)) => Err(io::Error::other(problem)),
            Err(error) => Err(io::Error::other(error)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_the_agents_arguments() {
        let mut request = ExecRequest::piped(["ls", "--env", "x"]);
        request.environment.insert("A".to_owned(), "b c".to_owned());
        let arguments = exec_arguments(&request, Some("--no-input"));
        assert_eq!(arguments, ["exec", "--no-input", "--env", "A=b c", "--", "ls", "--env", "x"]);
        assert_eq!(exec_arguments(&ExecRequest::piped(["a"]), None), ["exec", "--", "a"]);
    }
}
