//! Files that static pods read only when they start, or that are mounted into them one by one: such a mount is of the file that was there
//! then, and files are replaced as a whole. What comes with a folder ([`places::PKI`]) is read again by those who have it.

use bivouac_spec::node::Task;
use camino::Utf8PathBuf;

use super::super::command::{after, run};
use super::super::control_plane::SCHEDULER_CONFIG;
use super::super::places;
use super::FINISH;

/// A task: nobody goes on with a file that is another by now.
pub(in super::super) const RENEW: &str = "static-pods-renew";

const MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";

/// Pairs of a program and a file. A process whose file differs from the node's is asked to end, and its kubelet starts it with what is there
/// now; the task is done when there is none. Clusters in pods have such programs with files of their own: static pods of the node are in its
/// network. Who is asked twice ends at once, without what it has left to do; and a pod's first process does not hear what it does not catch
/// yet. Numbers of processes are given again, but not with the same start.
const SCRIPT: &str = r#"asked=$1 held=
shift
while [ "$#" -gt 1 ]; do
  for process in $(pidof "$1"); do
    [ "/proc/$process/ns/net" -ef /proc/self/ns/net ] || continue
    file="/proc/$process/root$2"
    [ -e "$file" ] || continue
    cmp -s "$file" "$2" && continue
    held=1
    this="$process $(cut -d ' ' -f 22 "/proc/$process/stat")"
    grep -qsxF "$this" "$asked" && continue
    grep -qs '^SigCgt:.*[4-7c-f]...$' "/proc/$process/status" || continue
    echo "$1 (process $process) has an earlier $2: it is started again"
    kill "$process" && echo "$this" >> "$asked"
  done
  shift 2
done
[ -z "$held" ]"#;

/// The processes that were asked to end.
const ASKED: &str = "/run/bivouac/static-pods-renew";

/// Programs and what they hold.
fn held() -> [(&'static str, String); 5] {
    let (certificate, key) = places::pair(SCHEDULER);
    [
        (MANAGER, places::kubeconfig("controller-manager")),
        (SCHEDULER, places::kubeconfig("scheduler")),
        (SCHEDULER, certificate),
        (SCHEDULER, key),
        (SCHEDULER, SCHEDULER_CONFIG.to_owned()),
    ]
}

/// What is done again when one of these files changes, certificates among them.
pub(in super::super) fn watched() -> Vec<Utf8PathBuf> {
    held().map(|(_, file)| file.into()).into()
}

pub(super) fn task() -> Task {
    let held = held();
    let pairs = held.iter().flat_map(|(program, file)| [*program, file]);
    let command: Vec<&str> =
        ["/bin/sh", "-c", SCRIPT, RENEW, ASKED].into_iter().chain(pairs).collect();
    run(RENEW, after([FINISH]), &command)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A program that sees an earlier file than others do, says when it is asked to end, and ends with its input.
    fn start(folder: &Path, program: &str, namespaces: &str) -> Child {
        let inside = r#"mount --bind earlier now && exec "$1" -c "$2""#;
        let program_text = "trap 'echo asked' TERM; echo ready; read line; read line";
        let program = folder.join(program);
        let made = Command::new("install").args(["-m", "755", "/bin/sh"]).arg(&program).status();
        assert!(made.unwrap().success());
        let mut unshare = Command::new("unshare");
        unshare.args([namespaces, "/bin/sh", "-c", inside, "inside"]);
        unshare.arg(program).arg(program_text).current_dir(folder);
        let mut child = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        child
    }

    #[test]
    fn who_has_an_earlier_file_is_asked_to_end_once_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("earlier"), "earlier").unwrap();
        fs::write(path("now"), "now").unwrap();
        let name = |of: &str| format!("{of}-{}", std::process::id());
        let (own, nested) = (name("own"), name("nested"));
        let children = [start(folder.path(), &own, "-rm"), start(folder.path(), &nested, "-rmn")];
        let done = |program: &str| {
            let arguments = ["-c", SCRIPT, RENEW, &path("asked"), program, &path("now")];
            Command::new("/bin/sh").args(arguments).status().unwrap().success()
        };
        assert!(done(&nested));
        for _ in 0..3 {
            assert!(!done(&own));
        }
        let said = children.map(|child| {
            let output = child.wait_with_output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        });
        assert_eq!(said, ["asked\n", ""]);
        assert!(done(&own));
    }
}
