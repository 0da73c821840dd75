//! Container images as streams, for nodes that do not see the files of this machine.

use std::io;
use std::os::unix::net::UnixStream as BlockingStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use bivouac_engine::Archive;
use bivouac_image::Error;
use camino::Utf8Path;
use tokio::io::{AsyncRead, ReadBuf};
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

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
}
