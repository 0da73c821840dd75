//! A node of this provider.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bivouac_provider::{ExecRequest, LogRequest, Node, Process, Reader, Stdio};
use bivouac_spec::{ClusterName, NodeName, Problem};
use camino::Utf8Path;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::process::ChildStdout;

use super::folder::NodeFolder;
use super::launch::{Launched, Streams, launch};
use super::order::{Exec, FileOrder, Order, Target};
use super::problem::{OrProblem as _, failed, not_running};
use super::record::find_process;
use super::{blocking, logs};

/// The largest piece of a file that is sent at once, in bytes.
const PIECE: usize = 128 * 1024;

/// A node, running or not.
#[derive(Debug)]
pub(super) struct LinuxNode {
    pub(super) cluster: ClusterName,
    pub(super) name: NodeName,
    pub(super) address: IpAddr,
    pub(super) folder: NodeFolder,
}

impl LinuxNode {
    /// The node's first process, freshly looked for.
    async fn target(&self) -> Result<Target, Problem> {
        let (folder, cluster, node) =
            (self.folder.clone(), self.cluster.clone(), self.name.clone());
        blocking(move || {
            let process = find_process(&folder, &cluster, &node)?;
            let process = process.ok_or_else(|| not_running(&cluster, &node))?;
            Ok(Target::new(cluster, node, folder, &process))
        })
        .await
    }

    async fn file(&self, path: &Utf8Path, mode: u32) -> Result<FileOrder, Problem> {
        if !path.is_absolute() {
            let message = format!("{path} is no absolute path in node {}", self.name);
            return Err(Problem::usage("provider.linux.path", message));
        }
        Ok(FileOrder { node: self.target().await?, path: path.to_owned(), mode })
    }
}

#[async_trait]
impl Node for LinuxNode {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    async fn exec(&self, request: &ExecRequest) -> Result<Process, Problem> {
        let order = Order::Exec(Exec {
            node: self.target().await?,
            command: request.command.clone(),
            environment: request.environment.clone(),
            no_input: request.stdio == Stdio::NoInput,
            inherited: request.stdio == Stdio::Inherited,
        });
        let streams = match request.stdio {
            Stdio::Piped => Streams::Piped,
            Stdio::NoInput => Streams::NoInput,
            Stdio::Inherited => Streams::Inherited,
        };
        let mut launched = launch(&order, streams)?;
        launched.answer().await?;
        let child = &mut launched.child;
        let stdin = child.stdin.take().map(|end| Box::new(end) as bivouac_provider::Writer);
        let stdout = child.stdout.take().map(|end| Box::new(end) as Reader);
        let stderr = child.stderr.take().map(|end| Box::new(end) as Reader);
        Ok(Process { stdin, stdout, stderr, exit: exit(launched).boxed() })
    }

    async fn put(&self, path: &Utf8Path, mode: u32, mut content: Reader) -> Result<(), Problem> {
        let order = Order::Put(self.file(path, mode).await?);
        let mut launched = launch(&order, Streams::Data)?;
        let input = launched.child.stdin.take();
        let sending = async {
            let Some(mut input) = input else { return Ok(()) };
            let mut piece = vec![0; PIECE];
            loop {
                let length = content.read(&mut piece).await?;
                // A short piece fits its length: PIECE is far below 4 GiB.
                let header = u32::try_from(length).unwrap_or_default().to_le_bytes();
                input.write_all(&header).await?;
                input.write_all(&piece[..length]).await?;
                if length == 0 {
                    return input.flush().await;
                }
            }
        };
        let sent: io::Result<()> = sending.await;
        // The end of the process's input says more than a broken pipe: it is heard first.
        let answer = launched.answer().await;
        launched.child.wait().await.or_problem("put", "a process of bivouac's own was lost")?;
        match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).or_problem("put", format_args!("what {path} is to hold cannot be read"))
            }
            _ => answer.map(drop),
        }
    }

    async fn get(&self, path: &Utf8Path) -> Result<Reader, Problem> {
        let order = Order::Get(self.file(path, 0).await?);
        let mut launched = launch(&order, Streams::Data)?;
        drop(launched.child.stdin.take());
        launched.answer().await?;
        let output = launched.child.stdout.take();
        let output = output.ok_or_else(|| failed("get", "the file has no stream"))?;
        Ok(Box::new(FileReader { output, end: exit(launched).boxed() }))
    }

    async fn logs(&self, request: &LogRequest) -> Result<Reader, Problem> {
        let (folder, node, request) = (self.folder.clone(), self.name.clone(), request.clone());
        blocking(move || logs::open(&folder, &node, &request)).await
    }

    async fn forward(&self, port: u16) -> Result<SocketAddr, Problem> {
        // The bridge is the host's own: what runs here reaches the node directly.
        Ok(SocketAddr::new(self.address, port))
    }
}

/// The exit code of the process. Dropping this tells the process that its command is not wanted any more.
async fn exit(mut launched: Launched) -> Result<i32, Problem> {
    use std::os::unix::process::ExitStatusExt as _;
    let status = launched.child.wait().await;
    let status = status.or_problem("wait", "the command cannot be waited for")?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// A file that is being read. A file that could not be read to its end is an error, not a short file.
struct FileReader {
    output: ChildStdout,
    end: BoxFuture<'static, Result<i32, Problem>>,
}

impl AsyncRead for FileReader {
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
        match std::task::ready!(self.end.as_mut().poll(context)) {
            Ok(0) => {
                self.end = futures::future::ready(Ok(0)).boxed();
                Poll::Ready(Ok(()))
            }
            Ok(code) => Poll::Ready(Err(io::Error::other(format!("reading ended with {code}")))),
            Err(problem) => Poll::Ready(Err(io::Error::other(problem))),
        }
    }
}
