//! A container image of an engine as an archive, as `docker save` writes it.

use std::io;
use std::time::Duration;

use bivouac_provider::Reader;
use bivouac_spec::Problem;
use futures::TryStreamExt as _;
use tokio_util::io::StreamReader;

use super::EngineEnvironment;
use super::engine::Engine;
use super::problem::{OrProblem as _, absent_is_success, failed};

/// How long an engine may take to begin: some write the whole archive to their own disk first.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Opens an image of the engine that the `docker` command would use, whichever way that is reached. A stream that breaks ends with
/// an error.
///
/// # Errors
/// When no engine answers, or it has no such image.
pub async fn save_image(environment: &EngineEnvironment, image: &str) -> Result<Reader, Problem> {
    let engine = Engine::connect(None, environment).await?;
    let found = absent_is_success(engine.docker.inspect_image(image).await);
    let message = format!("image {image} of the engine at {} cannot be read", engine.endpoint);
    if found.or_problem("save_image", &message)?.is_none() {
        return Err(no_such_image(&engine, image));
    }
    let archive = engine.docker.clone().with_timeout(PATIENCE).export_image(image);
    Ok(Box::new(StreamReader::new(archive.map_err(io::Error::other))))
}

fn no_such_image(engine: &Engine, image: &str) -> Problem {
    let message = format!("the container engine at {} has no image {image}", engine.endpoint);
    failed("no_such_image", message)
        .help(format!("run `docker images` to see the names, or `docker pull {image}`"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    const IMAGE: &str = "office.test/team/web:1";

    /// What an engine answers to a request for a path, or that it has no such thing.
    type Answers = &'static [(&'static str, &'static str)];

    async fn answer(stream: UnixStream, answers: Answers) {
        let mut stream = BufReader::new(stream);
        let (mut path, mut line) = (String::new(), String::new());
        while stream.read_line(&mut line).await.unwrap_or(0) > 2 {
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap().to_owned();
            }
            line.clear();
        }
        let known = answers.iter().find(|(known, _)| path.ends_with(known));
        let answer = known.map_or(
            "HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n{\"message\":\"gone\"}\n",
            |(_, answer)| answer,
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    async fn saved(image: &str, answers: Answers) -> Result<io::Result<String>, Problem> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, answers));
            }
        });
        let host = Some(format!("unix://{}", socket.display()));
        let environment = EngineEnvironment { host, ..EngineEnvironment::default() };
        let mut archive = save_image(&environment, image).await?;
        let mut text = String::new();
        Ok(archive.read_to_string(&mut text).await.map(|_| text))
    }

    const INFO: (&str, &str) = ("/info", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    const INSPECTED: (&str, &str) =
        ("/images/office.test/team/web:1/json", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");

    #[tokio::test]
    async fn an_image_comes_whole_or_not_at_all() {
        let whole = &[
            INFO,
            INSPECTED,
            (
                "/images/office.test/team/web:1/get",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
            ),
        ];
        assert_eq!(saved(IMAGE, whole).await.unwrap().unwrap(), "body");
        let broken = &[
            INFO,
            INSPECTED,
            (
                "/images/office.test/team/web:1/get",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
            ),
        ];
        saved(IMAGE, broken).await.unwrap().unwrap_err();
    }

    #[tokio::test]
    async fn an_image_that_the_engine_lacks_is_told() {
        let problem = saved("nginx", &[INFO]).await.unwrap_err();
        assert_eq!(problem.code, "provider.docker.no_such_image");
        assert!(problem.help.unwrap().contains("docker pull nginx"));
    }
}
