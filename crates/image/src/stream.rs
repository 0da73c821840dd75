//! A layer's byte stream: decompressed, and hashed by a second thread while it is unpacked.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::digest::{Hasher, Sha256};

const BLOCK: usize = 1 << 19;
/// Blocks that may wait for the hashing thread.
const QUEUE: usize = 8;

/// How a stream is compressed, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Looks at the first bytes and decompresses what follows where it is compressed.
pub(crate) fn decompress<'a>(
    reader: impl Read + Send + 'a,
) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut reader = BufReader::with_capacity(BLOCK, reader);
    let compression = Compression::of(reader.fill_buf()?);
    Ok((
        compression,
        match compression {
            Compression::Plain => Box::new(reader),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(reader)?),
        },
    ))
}

/// Passes bytes on in large blocks, while another thread hashes them.
pub(crate) struct HashingReader<R> {
    inner: R,
    block: Arc<Vec<u8>>,
    position: usize,
    size: u64,
    sender: SyncSender<Arc<Vec<u8>>>,
    hasher: JoinHandle<Sha256>,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        let (sender, receiver) = sync_channel::<Arc<Vec<u8>>>(QUEUE);
        let hasher = std::thread::spawn(move || {
            let mut hasher = Hasher::default();
            for block in receiver {
                hasher.update(&block);
            }
            hasher.finish()
        });
        Self { inner, block: Arc::default(), position: 0, size: 0, sender, hasher }
    }

    /// Reads what is left, for the digest is of the whole stream; returns it and the size in bytes.
    pub(crate) fn finish(mut self) -> io::Result<(Sha256, u64)> {
        while !self.fill_buf()?.is_empty() {
            self.position = self.block.len();
        }
        drop(self.sender);
        Ok((self.hasher.join().expect("hashing does not panic"), self.size))
    }
}

impl<R: Read> BufRead for HashingReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.block.len() {
            let mut block = vec![0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.inner.read(&mut block[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            block.truncate(filled);
            self.size += filled as u64;
            self.position = 0;
            self.block = Arc::new(block);
            if filled > 0 {
                self.sender
                    .send(Arc::clone(&self.block))
                    .expect("the hashing thread lives as long as its sender");
            }
        }
        Ok(&self.block[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_the_whole_stream_even_when_little_is_read() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let mut reader = HashingReader::new(&bytes[..]);
        let mut start = [0; 1000];
        reader.read_exact(&mut start).unwrap();
        assert_eq!(start, bytes[..1000]);
        assert_eq!(reader.finish().unwrap(), (Sha256::of(&bytes), bytes.len() as u64));
    }
}
