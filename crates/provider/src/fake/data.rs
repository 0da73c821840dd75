//! The data of a node in memory leaves it and comes to it: `agent save` and `agent restore`. What travels is no tar here; nobody between
//! looks into it.

use std::io;

use bivouac_spec::Problem;
use bivouac_spec::node::save::{COPY, PAUSE, SEND, Said};
use bivouac_spec::node::stream::Answer;
use camino::Utf8PathBuf;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::node::FakeNode;
use super::program::Streams;

/// A file as it travels: path, mode and content.
type Travelling = (Utf8PathBuf, u32, Vec<u8>);

/// The folders that are named by `--path FOLDER`, beside `--size BYTES`.
pub(super) fn folders(words: &[&str]) -> Option<Vec<Utf8PathBuf>> {
    let mut folders = Vec::new();
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--await-pause").collect();
    for pair in words.chunks(2) {
        match pair {
            ["--path", folder] => folders.push(Utf8PathBuf::from(*folder)),
            ["--size", _] => {}
            _ => return None,
        }
    }
    Some(folders)
}

/// Says what `agent save` does. Whoever stops listening or talking does not want it any more.
pub(super) async fn save(
    node: &FakeNode,
    folders: &[Utf8PathBuf],
    streams: &mut Streams,
) -> io::Result<()> {
    let mut words = BufReader::new(&mut streams.input).lines();
    let mut said = async |said: Said| streams.output.write_all(said.line().as_bytes()).await;
    let bytes = travelling(node, folders)?.len() as u64 + node.fake.world().data;
    said(Said::Ready { bytes }).await?;
    expect(words.next_line().await?.as_deref(), PAUSE)?;
    said(Said::Paused { processes: 3 }).await?;
    expect(words.next_line().await?.as_deref(), COPY)?;
    let text = travelling(node, folders)?;
    let bytes = text.len() as u64;
    said(Said::Copied { paused_for: 1, bytes }).await?;
    expect(words.next_line().await?.as_deref(), SEND)?;
    said(Said::Sending { bytes }).await?;
    streams.output.write_all(&text).await?;
    streams.output.shutdown().await
}

/// The files in folders of a node, as they travel.
fn travelling(node: &FakeNode, folders: &[Utf8PathBuf]) -> io::Result<Vec<u8>> {
    let files: Vec<Travelling> = node
        .files()
        .into_iter()
        .filter(|(path, _)| folders.iter().any(|folder| path.starts_with(folder)))
        .map(|(path, (mode, content))| (path, mode, content))
        .collect();
    Ok(serde_json::to_vec(&files)?)
}

fn expect(heard: Option<&str>, word: &str) -> io::Result<()> {
    if heard == Some(word) {
        return Ok(());
    }
    Err(io::Error::other(format!("waited for `{word}`, and heard {heard:?}")))
}

/// Takes files in place of those that are in the folders. Only where nothing else runs.
pub(super) async fn restore(
    node: &FakeNode,
    folders: &[Utf8PathBuf],
    streams: &mut Streams,
) -> io::Result<()> {
    let mut text = Vec::new();
    streams.input.read_to_end(&mut text).await?;
    let done = match serde_json::from_slice::<Vec<Travelling>>(&text) {
        Ok(files) => node.replace(folders, files),
        Err(error) => Err(Problem::from_error("provider.fake.restore", &error)),
    };
    let Err(problem) = done else { return Ok(()) };
    streams.errors.write_all(Answer::Problem(problem).line().as_bytes()).await?;
    Err(io::Error::other("nothing was restored"))
}
