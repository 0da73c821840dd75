//! Images of a local Docker engine, read over its socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use camino::Utf8Path;

use crate::archive::{Imported, import_stream};
use crate::error::Error;
use crate::event::OnEvent;

/// Imports an image of the engine at `/var/run/docker.sock`, or at `docker_host` where that is `unix://...`.
///
/// # Errors
/// [`Error::NoEngine`], [`Error::NoSuchImage`], [`Error::Engine`], and those of
/// [`import_archive`](crate::import_archive).
pub fn import_docker_image(
    folder: &Utf8Path,
    name: &str,
    docker_host: Option<&str>,
    on_event: OnEvent<'_>,
) -> Result<Vec<Imported>, Error> {
    // Checks the name too, before it becomes part of a request.
    crate::normalize(name)?;
    let socket = docker_host.and_then(|host| host.strip_prefix("unix://"));
    let socket = socket.unwrap_or("/var/run/docker.sock");
    let body = open_image(socket, name)?;
    import_stream(folder, name, body, on_event)
}

/// Asks in HTTP/1.0, so that the answer's body is neither chunked nor longer than the connection.
fn open_image(socket: &str, name: &str) -> Result<impl Read, Error> {
    let no_engine = |source| Error::NoEngine { socket: socket.to_owned(), source };
    let mut stream = UnixStream::connect(socket).map_err(no_engine)?;
    write!(stream, "GET /images/{name}/get HTTP/1.0\r\nHost: docker\r\n\r\n").map_err(no_engine)?;
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    let status = line(&mut reader).map_err(no_engine)?;
    while !line(&mut reader).map_err(no_engine)?.is_empty() {}
    match status.split(' ').nth(1) {
        Some("200") => Ok(reader),
        Some("404") => Err(Error::NoSuchImage { name: name.to_owned(), socket: socket.to_owned() }),
        _ => {
            let mut text = String::new();
            // What can be read of an error is enough.
            let _ = reader.take(4096).read_to_string(&mut text);
            let answer = format!("{status} {}", text.trim());
            Err(Error::Engine { socket: socket.to_owned(), answer })
        }
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    if reader.take(1 << 16).read_line(&mut text)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn answer(text: &'static [u8]) -> (tempfile::TempDir, Error) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            line(&mut BufReader::new(&stream)).unwrap();
            stream.write_all(text).unwrap();
        });
        let images = Utf8Path::from_path(folder.path()).unwrap().join("images");
        let host = format!("unix://{}", path.display());
        let error = import_docker_image(&images, "nginx", Some(&host), &|_| ()).unwrap_err();
        server.join().unwrap();
        (folder, error)
    }

    #[test]
    fn what_the_engine_lacks_and_says_is_told() {
        let (_folder, error) = answer(b"HTTP/1.0 404 Not Found\r\n\r\n{}");
        assert_eq!(error.code(), "image.no_such_image");
        let (_folder, error) = answer(b"HTTP/1.0 500 Oh\r\nA: b\r\n\r\n{\"message\":\"no\"}");
        assert!(error.to_string().ends_with(r#"500 Oh {"message":"no"}"#), "{error}");
    }

    #[test]
    fn no_engine_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let images = Utf8Path::from_path(folder.path()).unwrap();
        let host = format!("unix://{images}/none.sock");
        let error = import_docker_image(images, "nginx", Some(&host), &|_| ()).unwrap_err();
        assert_eq!(error.code(), "image.no_engine");
    }
}
