//! Container images as streams, for nodes that do not see the files of this machine.

use std::io;
use std::os::unix::net::UnixStream as BlockingStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use bivouac_engine::Archive;
use bivouac_image::{Error, normalize};
use camino::Utf8Path;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// An archive in a file, plain or compressed: the node's agent knows both.
pub async fn of_file(path: &Utf8Path) -> Result<Archive, Error> {
    let failed = |source| Error::Io { action: "open", path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let size = file.metadata().await.map_err(failed)?.len();
    Ok(Archive { content: Box::new(file), size: Some(size) })
}

/// An OCI layout folder, packed while it is read.
pub fn of_folder(path: &Utf8Path) -> Result<Archive, Error> {
    let failed = |source| Error::Io { action: "pack", path: path.to_owned(), source };
    let (ours, theirs) = BlockingStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let stream = UnixStream::from_std(ours).map_err(failed)?;
    let folder = path.to_owned();
    let packing = tokio::task::spawn_blocking(move || {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(1 << 18, theirs));
        tar.append_dir_all("", &folder)?;
        tar.into_inner()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
    });
    Ok(Archive { content: Box::new(Packed { stream, packing: Some(packing) }), size: None })
}

/// A stream whose end tells whether all of it was written.
struct Packed {
    stream: UnixStream,
    packing: Option<JoinHandle<io::Result<()>>>,
}

impl AsyncRead for Packed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(packing) = &mut self.packing else { return Poll::Ready(Ok(())) };
        let packed = std::task::ready!(Pin::new(packing).poll(context));
        self.packing = None;
        Poll::Ready(packed.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

/// An image of the engine at `docker_host` where that is a socket of this machine, or else at the usual one. Asks in HTTP/1.0, so
/// that the body of the answer is neither chunked nor longer than the connection.
pub async fn of_engine(name: &str, docker_host: Option<&str>) -> Result<Archive, Error> {
    // Checks the name too, before it becomes part of a request.
    normalize(name)?;
    let socket = docker_host.and_then(|host| host.strip_prefix("unix://"));
    let socket = socket.unwrap_or("/var/run/docker.sock");
    let no_engine = |source| Error::NoEngine { socket: socket.to_owned(), source };
    let mut stream = UnixStream::connect(socket).await.map_err(no_engine)?;
    let request = format!("GET /images/{name}/get HTTP/1.0\r\nHost: docker\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(no_engine)?;
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    let status = line(&mut reader).await.map_err(no_engine)?;
    while !line(&mut reader).await.map_err(no_engine)?.is_empty() {}
    match status.split(' ').nth(1) {
        Some("200") => Ok(Archive { content: Box::new(reader), size: None }),
        Some("404") => Err(Error::NoSuchImage { name: name.to_owned(), socket: socket.to_owned() }),
        _ => {
            let mut text = String::new();
            // What can be read of an error is enough.
            let _ = reader.take(4096).read_to_string(&mut text).await;
            let answer = format!("{status} {}", text.trim());
            Err(Error::Engine { socket: socket.to_owned(), answer })
        }
    }
}

async fn line(reader: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut text = String::new();
    if reader.take(1 << 16).read_line(&mut text).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut archive: Archive) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        archive.content.read_to_end(&mut bytes).await.map(|_| bytes)
    }

    #[tokio::test]
    async fn a_folder_is_packed_as_its_parts_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap();
        std::fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        std::fs::write(path.join("index.json"), "{}").unwrap();
        std::fs::write(path.join("blobs/sha256/big"), vec![7; 3 << 20]).unwrap();
        let packed = all(of_folder(path).unwrap()).await.unwrap();
        let mut tar = tar::Archive::new(&packed[..]);
        let entries = tar.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.size())
        });
        let mut entries: Vec<_> = entries.filter(|(_, size)| *size > 0).collect();
        entries.sort();
        let expected = [("blobs/sha256/big".to_owned(), 3 << 20), ("index.json".to_owned(), 2)];
        assert_eq!(entries, expected);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_packed_is_no_whole_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap();
        std::os::unix::fs::symlink("nowhere", path.join("index.json")).unwrap();
        all(of_folder(path).unwrap()).await.unwrap_err();
    }

    #[tokio::test]
    async fn what_the_engine_says_is_told_and_its_image_comes_whole() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let host = format!("unix://{}", socket.display());
        let answers = ["HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody", "HTTP/1.0 404 No\r\n\r\n{}"];
        let server = tokio::spawn(async move {
            for answer in answers {
                let (stream, _) = listener.accept().await.unwrap();
                let mut reader = BufReader::new(stream);
                assert_eq!(line(&mut reader).await.unwrap(), "GET /images/nginx/get HTTP/1.0");
                reader.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let archive = of_engine("nginx", Some(&host)).await.unwrap();
        assert_eq!(all(archive).await.unwrap(), b"body");
        let Err(error) = of_engine("nginx", Some(&host)).await else {
            panic!("it has no such image")
        };
        assert_eq!(error.code(), "image.no_such_image");
        server.await.unwrap();
        let Err(error) = of_engine("nginx", Some("unix:///nowhere")).await else { panic!() };
        assert_eq!(error.code(), "image.no_engine");
    }
}
