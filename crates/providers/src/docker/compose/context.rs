//! The folder `image/` of an export: all that the node image is built from, without bivouac and without a registry.
//!
//! Layers go over compressed with gzip, which every engine unpacks, and each is written once: its name tells its content.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};

use bivouac_provider::{LayerPath, Progress};
use bivouac_spec::Problem;
use bivouac_spec::node::paths;
use camino::{Utf8Path, Utf8PathBuf};
use flate2::Compression;
use flate2::write::GzEncoder;
use fs_err::File;
use serde_json::Value;

use super::folder::{create, write};
use super::problem::failed;
use crate::docker::archive::Recipe;

/// How many characters of a digest tell one from another.
const DIGITS: usize = 12;

/// The agent in the folder.
const AGENT: &str = "bivouac";

/// Bytes that are copied between two reports.
const PIECE: u64 = 4 << 20;

/// Writes the folder. What is not of this image is removed from it.
pub(super) fn write_context(
    folder: &Utf8Path,
    recipe: &Recipe,
    on_progress: &dyn Fn(Progress),
) -> Result<(), Problem> {
    let unreadable =
        |error: io::Error| failed("image", "the node image cannot be read").because(&error);
    let total = recipe.size().map_err(unreadable)?;
    let mut done = 0;
    let layers: Vec<String> = recipe.request.image.layers.iter().map(layer_name).collect();
    for (layer, name) in recipe.request.image.layers.iter().zip(&layers) {
        let path = folder.join(name);
        if !path.exists() {
            let report = |bytes| on_progress(Progress { done: done + bytes, total });
            create(&path, 0o644, |file| compress(layer, file, &report))?;
        }
        done += layer.size;
        on_progress(Progress { done, total });
    }
    let mut agent = File::open(&recipe.request.agent).map_err(unreadable)?;
    create(&folder.join(AGENT), 0o755, |file| io::copy(&mut agent, file).map(drop))?;
    write(&folder.join("Dockerfile"), dockerfile(&recipe.config(&[]), &layers).as_bytes(), 0o644)?;
    remove_others(folder, &layers);
    on_progress(Progress { done: total, total });
    Ok(())
}

fn layer_name(layer: &LayerPath) -> String {
    let hex = layer.diff_id.trim_start_matches("sha256:");
    format!("layer-{}.tar.gz", hex.get(..DIGITS).unwrap_or(hex))
}

fn compress(layer: &LayerPath, file: &mut std::fs::File, report: &dyn Fn(u64)) -> io::Result<()> {
    let mut plain = zstd::Decoder::new(File::open(&layer.blob)?)?;
    let mut output = GzEncoder::new(io::BufWriter::new(file), Compression::fast());
    let mut done = 0;
    loop {
        let copied = io::copy(&mut plain.by_ref().take(PIECE), &mut output)?;
        if copied == 0 {
            break;
        }
        done += copied;
        report(done);
    }
    if done != layer.size {
        let message = format!("{} unpacks to other than {} bytes", layer.blob, layer.size);
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    output.finish()?.flush()
}

/// What the image config says, in the words of a Dockerfile.
fn dockerfile(config: &Value, layers: &[String]) -> String {
    let config = &config["config"];
    let mut text = "# Written by bivouac.\nFROM scratch\n".to_owned();
    for layer in layers {
        let _ = writeln!(text, "ADD {layer} /");
    }
    let _ = writeln!(text, "COPY {AGENT} {}", paths::AGENT);
    for variable in config["Env"].as_array().into_iter().flatten() {
        let (name, value) = variable.as_str().and_then(|it| it.split_once('=')).unwrap_or_default();
        let _ = writeln!(text, "ENV {name}={}", quoted(value));
    }
    for (name, value) in config["Labels"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "LABEL {name}={}", quoted(value.as_str().unwrap_or_default()));
    }
    for (word, field) in [("STOPSIGNAL", "StopSignal"), ("WORKDIR", "WorkingDir")] {
        if let Some(value) = config[field].as_str() {
            let _ = writeln!(text, "{word} {value}");
        }
    }
    for (word, field) in [("ENTRYPOINT", "Entrypoint"), ("CMD", "Cmd")] {
        let _ = writeln!(text, "{word} {}", config[field]);
    }
    text
}

/// A text in which a Dockerfile sees no variable and no end.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"))
}

fn remove_others(folder: &Utf8Path, layers: &[String]) {
    let entries = folder.read_dir_utf8().into_iter().flatten().flatten();
    let stale = entries.map(|entry| entry.path().to_owned()).filter(|path: &Utf8PathBuf| {
        let name = path.file_name().unwrap_or_default();
        let is_layer = name.trim_start_matches('.').starts_with("layer-");
        is_layer && !layers.iter().any(|layer| layer == name)
    });
    for path in stale.collect::<Vec<_>>() {
        // One that stays only takes room.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::samples;
    use bivouac_provider::ImageRequest;

    fn recipe(dir: &Utf8Path, size: u64) -> Recipe {
        let blob = dir.join("blob");
        std::fs::write(&blob, zstd::encode_all(&[7; 1024][..], 1).unwrap()).unwrap();
        std::fs::write(dir.join("agent"), "an agent").unwrap();
        let mut image = samples::node().image;
        image.layers =
            vec![LayerPath { blob, diff_id: "sha256:0123456789abcdef".to_owned(), size }];
        Recipe {
            tag: "bivouac.dev/node:1-2".to_owned(),
            agent_digest: "sha256:1".to_owned(),
            request: ImageRequest { image, agent: dir.join("agent") },
            architecture: "amd64".to_owned(),
        }
    }

    #[test]
    fn the_image_is_built_from_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let folder = dir.join("image");
        let recipe = recipe(dir, 1024);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("layer-old.tar.gz"), "").unwrap();
        write_context(&folder, &recipe, &|progress| assert!(progress.done <= progress.total))
            .unwrap();
        let mut names: Vec<_> =
            folder.read_dir_utf8().unwrap().map(|it| it.unwrap().file_name().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["Dockerfile", "bivouac", "layer-0123456789ab.tar.gz"]);
        let layer = std::fs::File::open(folder.join(&names[2])).unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(layer).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, [7; 1024]);
        insta::assert_snapshot!(std::fs::read_to_string(folder.join("Dockerfile")).unwrap());
    }

    #[test]
    fn a_layer_that_is_not_what_the_store_says_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let folder = dir.join("image");
        let problem = write_context(&folder, &recipe(dir, 1025), &|_| ()).unwrap_err();
        assert!(problem.causes[0].contains("1025 bytes"), "{problem:?}");
        assert_eq!(folder.read_dir_utf8().unwrap().count(), 0);
    }

    #[test]
    fn quotes_hold() {
        assert_eq!(quoted(r#"a"b$c\"#), r#""a\"b\$c\\""#);
    }
}
