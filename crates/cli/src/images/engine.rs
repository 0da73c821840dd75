//! The container engine on this machine that images are loaded from: the one that the `docker` command would use.

use bivouac_providers::docker::EngineEnvironment;
use bivouac_spec::Problem;
use camino::Utf8Path;
use serde_json::Value;

/// The context that stands for the environment and the usual socket.
const DEFAULT_CONTEXT: &str = "default";

/// The address of the engine, `unix://…`, where anything names one.
///
/// # Errors
/// When an engine is chosen that is asked in another way than by a socket of this machine: `image` may be another one here.
pub fn local(image: &str, environment: &EngineEnvironment) -> Result<Option<String>, Problem> {
    if let Some(host) = &environment.host {
        return is_local(host)
            .then(|| Some(host.clone()))
            .ok_or_else(|| elsewhere(image, &format!("at {host}, as `DOCKER_HOST` says")));
    }
    let context = environment.context.clone().or_else(|| current_context(environment));
    let Some(context) = context.filter(|context| context != DEFAULT_CONTEXT) else {
        return Ok(None);
    };
    let host = host_of(&context, environment).filter(|host| is_local(host));
    host.map(Some).ok_or_else(|| elsewhere(image, &format!("that of context `{context}`")))
}

fn is_local(host: &str) -> bool {
    host.starts_with("unix:///")
}

fn elsewhere(image: &str, which: &str) -> Problem {
    let message = format!(
        "cannot load {image}: the container engine is {which}, and images are only taken from one on this machine"
    );
    Problem::usage("cli.load_engine", message)
        .help(format!("write it to a file with `docker save -o FILE {image}`, and load that"))
}

/// The context that `docker context use` chose.
fn current_context(environment: &EngineEnvironment) -> Option<String> {
    let config = read(&environment.config.as_ref()?.join("config.json"))?;
    let name = config["currentContext"].as_str().filter(|name| !name.is_empty())?;
    Some(name.to_owned())
}

/// Where the engine of a context listens.
fn host_of(context: &str, environment: &EngineEnvironment) -> Option<String> {
    let contexts = environment.config.as_ref()?.join("contexts/meta").read_dir_utf8().ok()?;
    let mut metas = contexts.flatten().filter_map(|entry| read(&entry.path().join("meta.json")));
    let meta = metas.find(|meta| meta["Name"] == context)?;
    meta["Endpoints"]["docker"]["Host"].as_str().map(str::to_owned)
}

fn read(path: &Utf8Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;

    fn asked(host: Option<&str>, context: Option<&str>, config: &Utf8Path) -> String {
        let environment = EngineEnvironment {
            host: host.map(str::to_owned),
            context: context.map(str::to_owned),
            config: Some(config.to_owned()),
            ..EngineEnvironment::default()
        };
        match local("web", &environment) {
            Ok(host) => host.unwrap_or_else(|| "usual".to_owned()),
            Err(problem) => problem.code,
        }
    }

    #[test]
    fn only_engines_of_this_machine_are_asked() {
        let folder = tempfile::tempdir().unwrap();
        let config = Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
        for (name, host) in [("own", "unix:///own.sock"), ("office", "ssh://me@office")] {
            let folder = config.join("contexts/meta").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            let meta = serde_json::json!({"Name": name, "Endpoints": {"docker": {"Host": host}}});
            std::fs::write(folder.join("meta.json"), meta.to_string()).unwrap();
        }
        let refused = "cli.load_engine";
        assert_eq!(asked(None, None, &config), "usual");
        assert_eq!(asked(None, Some("default"), &config), "usual");
        assert_eq!(asked(Some("unix:///a.sock"), Some("office"), &config), "unix:///a.sock");
        assert_eq!(asked(Some("tcp://office:2376"), None, &config), refused);
        assert_eq!(asked(None, Some("own"), &config), "unix:///own.sock");
        assert_eq!(asked(None, Some("office"), &config), refused);
        assert_eq!(asked(None, Some("gone"), &config), refused);
        std::fs::write(config.join("config.json"), r#"{"currentContext": "office"}"#).unwrap();
        assert_eq!(asked(None, None, &config), refused);
    }
}
