//! Builds a node image of the embedded bundle into a store: `build_node_image STORE [STACK [VERSION]]`.

use std::io::Write;
use std::time::Instant;

use bivouac_image::{BuildOptions, Bundle, Cancel, Event, Source, Stack, Store, build};
use camino::Utf8Path;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().expect("the store's folder is the first argument");
    let stack = arguments.next().map_or(Some(Stack::default()), |name| Stack::named(&name));
    let stack = stack.expect("the second argument is the name of a stack");
    let version = arguments.next();
    let since = Instant::now();
    let say = |text: String| {
        let seconds = since.elapsed().as_secs_f64();
        writeln!(std::io::stderr(), "{seconds:8.2} {text}").expect("stderr is open");
    };
    let on_event = |event: Event| match event {
        Event::Progress { .. } => {}
        event => say(format!("{event:?}")),
    };
    let result = Store::open(Utf8Path::new(&root)).and_then(|store| {
        let options = BuildOptions { stack, source: Source::Auto };
        let bundle = Bundle::embedded()?;
        let bundle = match &version {
            Some(version) => bundle.choose(stack, version)?,
            None => bundle,
        };
        build(&store, &bundle, &options, &on_event, &Cancel::new())
    });
    match result {
        Ok(image) => say(format!("{} {}", image.folder, image.manifest.digest)),
        Err(error) => {
            say(format!("{}: {error}\n{}", error.code(), error.help().unwrap_or_default()));
            std::process::exit(1);
        }
    }
}
