//! Small file operations that the whole crate shares: listing, removing, and documents written as a whole.

use std::fs;
use std::io::{self, Write};

use camino::Utf8Path;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{At, Error};

/// Names in a folder, sorted.
pub(crate) fn names(folder: &Utf8Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in folder.read_dir_utf8().at("list", folder)? {
        names.push(entry.at("list", folder)?.file_name().to_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a file or a folder with all that is in it; absent is success.
pub(crate) fn remove(path: &Utf8Path) -> Result<(), Error> {
    let result = match fs::symlink_metadata(path) {
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.at("remove", path),
    }
}

/// Writes a small file as a whole: a neighbour first, on disk, then renamed.
pub(crate) fn write_atomic(path: &Utf8Path, bytes: &[u8]) -> Result<(), Error> {
    let name = path.file_name().unwrap_or("file");
    let near = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut file = fs::File::create(&near).at("create", &near)?;
    file.write_all(bytes).at("write", &near)?;
    file.sync_data().at("sync", &near)?;
    fs::rename(&near, path).at("put in place", path)
}

/// Writes a document as JSON with a final newline.
pub(crate) fn write_json(path: &Utf8Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::from).at("render", path)?;
    text.push(b'\n');
    write_atomic(path, &text)
}

/// Reads a JSON document; one that does not parse is damage.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Utf8Path) -> Result<T, Error> {
    let text = fs::read(path).at("read", path)?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Damaged { what: path.to_owned(), why: error.to_string() })
}
