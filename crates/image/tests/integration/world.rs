//! A small bundle, and stand-ins for Go and mmdebstrap that are quick and count their calls.
//!
//! A build runs in a process of its own: only so can it have a `PATH` of its own, and several can run at once.

use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use bivouac_image::{BuildOptions, Bundle, Cancel, Event, Source, Stack, Store, build};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::samples::elf;

const ORDER: &str = "BIVOUAC_TEST_BUILD";

const GO: &str = r#"#!/bin/sh
here=$(dirname "$0")
case $1 in
env) echo go1.99; echo local ;;
list) echo one; echo two ;;
build)
    while [ "$1" != -o ]; do shift; done
    echo "go $(basename "$2")" >> "$here/calls"
    if [ -e "$here/fail-$(basename "$2")" ]; then echo "main.go:1: broken" >&2; exit 1; fi
    echo one >&2
    echo two >&2
    { cat main.go; echo "$*"; } | sed 's|[^ ]*/binaries|binaries|' > "$2"
    ;;
esac
"#;

const MMDEBSTRAP: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo mmdebstrap >> "$here/calls"
extra=
while [ $# -gt 3 ]; do
    case $1 in *,extra) extra=yes ;; esac
    shift
done
mkdir -p "$2/etc" "$2/usr/bin" "$2/dev" "$2/var/lib/dpkg" "$2/var/log"
echo "I: extracting archives..." >&2
echo box > "$2/usr/bin/busybox"
ln "$2/usr/bin/busybox" "$2/usr/bin/twin"
ln -s usr/bin "$2/bin"
mknod "$2/dev/null" c 1 3
date > "$2/var/log/now"
echo host > "$2/etc/hostname"
touch "$2/var/lib/dpkg/status"
libraries=$2/usr/lib/$(uname -m)-linux-gnu
mkdir -p "$2/usr/sbin" "$2/usr/lib64" "$libraries"
cp "$here/tool" "$2/usr/sbin/tool"
cp "$here/library" "$libraries/libone.so.1.2"
ln -s libone.so.1.2 "$libraries/libone.so.1"
cp "$here/library" "$2/usr/lib/libtwo.so"
cp "$here/library" "$2/usr/lib64/loader"
ln -s usr/lib64 "$2/lib64"
[ -n "$extra" ] || exit 0
printf 'Package: extra\nVersion: 7-1\n' > "$2/var/lib/dpkg/status"
mkdir -p "$2/var/lib/extra"
echo extra > "$2/usr/bin/extra"
rm "$2/usr/sbin/tool"
"#;

const LOCK: &str = r#"
format = 1
epoch = 1700000000
go = { version = "1.26" }

[debian]
suite = "test"
mirror = "http://localhost"
variant = "essential"
packages = ["busybox"]
remove = ["/var/log/*"]

[stacks]
kubernetes = [{ layer = "programs" }, { layer = "container-images" }]

[[stacks.incus]]
layer = "packages"
packages = ["extra"]
links = { "var/lib/extra" = "elsewhere" }

[[stacks.incus]]
layer = "instance"
name = "small"
description = "A small one"
remove = ["/usr/lib/*"]
files = { "sbin/init" = "instance/init" }
links = { "usr/bin/busybox" = ["ping"] }
templates = { "/etc/hostname" = "{{ container.name }}" }

[[program]]
name = "alpha"
version = "1.0"
license = "x"
source = "x"
module = "alpha"
files = { "usr/local/bin/alpha" = "alpha" }
links = { "usr/local/bin/alpha" = ["alphactl"] }
build = [{ packages = { alpha = "." }, stamps = { "main.version" = "{version}" } }]

[[program]]
name = "beta"
version = "BETA"
license = "x"
source = "x"
module = "beta"
files = { "opt/cni/bin/beta" = "beta" }
build = [{ packages = { beta = "." } }]

[[program]]
name = "box"
version = "3"
license = "x"
source = "x"
debian = { box = "usr/bin/busybox" }

[[image]]
name = "bivouac.dev/beta"
program = "beta"
base = "bivouac.dev/box"
files = { "/beta" = "beta" }
debian = ["/usr/sbin/tool"]
entrypoint = ["/beta"]

[[image]]
name = "bivouac.dev/box"
program = "box"
files = { "/bin/box" = "box" }
links = { "/bin/box" = ["sh"] }
directories = { "/tmp" = "1777" }

[[image]]
name = "bivouac.dev/other"
program = "beta"
tag = "v{version}"
base = "bivouac.dev/beta"
"#;

/// What a build said.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Outcome {
    /// Key and digest, or code and message of the error.
    pub(crate) result: Result<(String, String), (String, String)>,
    /// Steps that were made, and those that were reused.
    pub(crate) finished: Vec<String>,
    pub(crate) reused: Vec<String>,
}

impl Outcome {
    pub(crate) fn key(&self) -> String {
        self.result.as_ref().unwrap().0.clone()
    }

    pub(crate) fn digest(&self) -> String {
        self.result.as_ref().unwrap().1.clone()
    }
}

pub(crate) struct World {
    _folder: tempfile::TempDir,
    pub(crate) root: Utf8PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        for (name, text) in [("go", GO), ("mmdebstrap", MMDEBSTRAP)] {
            fs::create_dir_all(root.join("bin")).unwrap();
            install(&root.join("bin").join(name), text);
        }
        fs::write(root.join("bin/tool"), elf(Some("/lib64/loader"), &["libone.so.1"])).unwrap();
        fs::write(root.join("bin/library"), elf(None, &["libone.so.1", "libtwo.so"])).unwrap();
        fs::create_dir_all(root.join("bundle/instance")).unwrap();
        fs::write(root.join("bundle/instance/init"), "#!/bin/sh\n").unwrap();
        for module in ["alpha", "beta"] {
            let path = root.join("bundle").join(module).join("main.go");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("{module}\n")).unwrap();
        }
        let world = Self { _folder: folder, root };
        world.write_lock("2.0");
        world
    }

    /// Another version of `beta`.
    pub(crate) fn write_lock(&self, version: &str) {
        fs::write(self.root.join("bundle/bundle.lock"), LOCK.replace("BETA", version)).unwrap();
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::open(&self.root.join("bundle")).unwrap()
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.root.join("store")).unwrap()
    }

    pub(crate) fn image(&self, outcome: &Outcome) -> Utf8PathBuf {
        self.root.join("store/images").join(outcome.key())
    }

    /// Calls of the stand-ins so far, sorted.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("bin/calls")).unwrap_or_default();
        let mut calls: Vec<String> = text.lines().map(str::to_owned).collect();
        calls.sort();
        calls
    }

    pub(crate) fn build(&self) -> Outcome {
        self.finish("one", self.start("one"))
    }

    pub(crate) fn build_incus(&self) -> Outcome {
        self.finish("one", self.start_stack("one", Stack::Incus))
    }

    pub(crate) fn start(&self, name: &str) -> Child {
        self.start_stack(name, Stack::Kubernetes)
    }

    fn start_stack(&self, name: &str, stack: Stack) -> Child {
        let path = format!("{}:{}", self.root.join("bin"), std::env::var("PATH").unwrap());
        Command::new(std::env::current_exe().unwrap())
            .args(["world::build_in_child", "--exact"])
            .env("PATH", path)
            .env(ORDER, format!("{}|{name}|{stack}", self.root))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub(crate) fn finish(&self, name: &str, mut child: Child) -> Outcome {
        assert!(child.wait().unwrap().success());
        serde_json::from_slice(&fs::read(self.root.join(name)).unwrap()).unwrap()
    }
}

/// Writes a program by a process of its own: what this one has open for writing a child of another test has open, too, until it executes,
/// and meanwhile the program cannot be started ("text file busy").
fn install(path: &Utf8Path, text: &str) {
    let mut command = Command::new("sh");
    command.args(["-ec", "cat > \"$0\"; chmod 755 \"$0\"", path.as_str()]);
    let mut writer = command.stdin(Stdio::piped()).spawn().unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Does its work only as the child of another test.
#[test]
fn build_in_child() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let parts: Vec<&str> = order.split('|').collect();
    let [root, name, stack] = parts[..] else { panic!("{order}") };
    let stack = Stack::named(stack).unwrap();
    let root = Utf8Path::new(root);
    let store = Store::open(&root.join("store")).unwrap();
    let bundle = Bundle::open(&root.join("bundle")).unwrap();
    let (finished, reused) = <(Mutex<Vec<String>>, Mutex<Vec<String>>)>::default();
    let on_event = |event| match event {
        Event::Finished { step, .. } => finished.lock().unwrap().push(step),
        Event::Reused { step, .. } => reused.lock().unwrap().push(step),
        _ => {}
    };
    let options = BuildOptions { stack, source: Source::Build };
    let result = build(&store, &bundle, &options, &on_event, &Cancel::new());
    let result = result
        .map(|image| (image.key().to_owned(), image.manifest.digest.to_string()))
        .map_err(|error| (error.code().to_owned(), error.to_string()));
    let mut finished = finished.into_inner().unwrap();
    let mut reused = reused.into_inner().unwrap();
    finished.sort();
    reused.sort();
    let outcome = Outcome { result, finished, reused };
    fs::write(root.join(name), serde_json::to_vec(&outcome).unwrap()).unwrap();
}
