//! Nodes with disks of their own.

use std::fs;
use std::time::Duration;

use bivouac_provider::{Node, NodeRequest, Provider};
use bivouac_spec::facts::{Aspect, ObservedState};
use bivouac_spec::quantity::Bytes;
use bivouac_sys::filesystem::space;
use bivouac_sys::process::{PidFd, Signal};
use camino::{Utf8Path, Utf8PathBuf};

use crate::cases::{Cleanup, observed, pid, text};
use crate::ground::{Ground, traces};

const GRACE: Duration = Duration::from_secs(20);
const MEBIBYTE: u64 = 1 << 20;
const FILE: &str = "/var/lib/etcd/data";

fn request(ground: &Ground, mebibytes: Option<u64>) -> NodeRequest {
    let mut request = ground.request(0);
    request.resources.disk = mebibytes.map(|number| Bytes(number * MEBIBYTE));
    request
}

/// The files of the cluster that are block devices at this moment.
fn devices(ground: &Ground) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    let files =
        devices.filter_map(|one| fs::read_to_string(one.path().join("loop/backing_file")).ok());
    files.filter(|file| file.contains(ground.state.as_str())).collect()
}

fn folder(ground: &Ground) -> Utf8PathBuf {
    ground.state.join(format!("{}/nodes/node-0", ground.cluster))
}

/// A folder of the node, as the host sees it.
async fn inside(ground: &Ground, path: &str) -> String {
    format!("/proc/{}/root{path}", pid(ground).await)
}

async fn write(node: &dyn Node, path: &str, mebibytes: u64) -> Result<(), bivouac_spec::Problem> {
    let content = tokio::io::AsyncReadExt::take(tokio::io::repeat(7), mebibytes * MEBIBYTE);
    node.put(Utf8Path::new(path), 0o600, Box::new(content)).await
}

/// Ends the node as a loss of power would.
async fn kill(ground: &Ground) {
    let process = PidFd::open(pid(ground).await).unwrap();
    process.send_signal(Signal::KILL).unwrap();
    process.wait(Some(GRACE)).unwrap();
}

pub(crate) async fn limited() {
    let ground = Ground::new(27);
    let cleanup = Cleanup(&ground);
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    let small = request(&ground, Some(64));
    let node = ground.provider.ensure_node(&small).await.unwrap();
    // All that the node writes, but for logs.
    for path in ["/", "/var/lib/etcd", "/var/lib/kubelet", "/var/lib/containerd", "/opt"] {
        let made = inside(&ground, path).await;
        fs::create_dir_all(&made).unwrap();
        assert_eq!(space(&made).unwrap().total, 64 * MEBIBYTE, "{path}");
    }
    assert!(space(inside(&ground, "/var/log/bivouac").await).unwrap().total > 64 * MEBIBYTE);
    write(&*node, FILE, 20).await.unwrap();
    for path in ["/var/lib/kubelet/more", "/opt/more"] {
        let problem = write(&*node, path, 64).await.unwrap_err();
        assert!(format!("{problem:?}").contains("No space left on device"), "{problem:?}");
    }
    // The host sees one file, which takes what was written.
    let taken = std::os::unix::fs::MetadataExt::blocks(
        &fs::metadata(folder(&ground).join("disk.ext4")).unwrap(),
    ) * 512;
    assert!((20 * MEBIBYTE..=64 * MEBIBYTE).contains(&taken), "{taken}");
    assert_eq!(devices(&ground).len(), 1);
    assert!(!folder(&ground).join("upper").exists());

    // Killed, and started again at once.
    kill(&ground).await;
    assert_eq!(
        observed(&ground).await.unwrap().nodes[&ground.node(0)].state,
        ObservedState::Stopped
    );
    let node = ground.provider.ensure_node(&small).await.unwrap();
    assert_eq!(text(&*node, FILE).await.len() as u64, 20 * MEBIBYTE);
    ground.provider.stop_node(&ground.cluster, &ground.node(0), GRACE).await.unwrap();
    let node = ground.provider.ensure_node(&small).await.unwrap();
    assert_eq!(text(&*node, FILE).await.len() as u64, 20 * MEBIBYTE);
    assert_eq!(devices(&ground).len(), 1);

    drop(cleanup);
    assert_eq!(devices(&ground), [""; 0]);
    let left = traces(&ground);
    assert!(left.is_empty(), "{left:#?}");
}

/// What the record says of the disk; `None` without a record.
async fn recorded(ground: &Ground) -> Option<Option<Bytes>> {
    let node = observed(ground).await.unwrap().nodes[&ground.node(0)].clone();
    node.record.map(|record| record.resources.disk)
}

pub(crate) async fn never_made() {
    let ground = Ground::new(29);
    let _cleanup = Cleanup(&ground);
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    // Nothing can be made under this name.
    let obstacle = folder(&ground).join("disk.new");
    fs::create_dir_all(&obstacle).unwrap();
    let Err(problem) = ground.provider.ensure_node(&request(&ground, Some(160))).await else {
        panic!("there is no room for it")
    };
    assert!(problem.message.ends_with("cannot be made"), "{problem:?}");
    // No size is promised that a plan would hold it to.
    assert_eq!(recorded(&ground).await, None);
    fs::remove_dir(&obstacle).unwrap();
    let smaller = request(&ground, Some(64));
    ground.provider.ensure_node(&smaller).await.unwrap();
    assert_eq!(recorded(&ground).await, Some(smaller.resources.disk));
    assert_eq!(space(inside(&ground, "/").await).unwrap().total, 64 * MEBIBYTE);
}

pub(crate) async fn grown() {
    let ground = Ground::new(28);
    let _cleanup = Cleanup(&ground);
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    let facts = ground.provider.survey().await.unwrap().facts;
    assert!(facts.remakes_for.contains(&Aspect::Disk) && facts.no_disks.is_none(), "{facts:?}");
    // What a command leaves that is killed while it makes a disk.
    fs::create_dir_all(folder(&ground)).unwrap();
    fs::write(folder(&ground).join("disk.new"), "half").unwrap();
    let node = ground.provider.ensure_node(&request(&ground, Some(64))).await.unwrap();
    write(&*node, FILE, 20).await.unwrap();

    // What cannot be leaves what was there, and nothing says otherwise.
    let Err(problem) = ground.provider.ensure_node(&request(&ground, Some(800 << 30))).await else {
        panic!("there are no such disks")
    };
    assert!(problem.message.ends_with("cannot be made larger"), "{problem:?}");
    assert!(problem.help.is_some(), "{problem:?}");
    assert_eq!(recorded(&ground).await, Some(request(&ground, Some(64)).resources.disk));
    let node = ground.provider.ensure_node(&request(&ground, Some(64))).await.unwrap();
    assert_eq!(space(inside(&ground, "/var/lib/etcd").await).unwrap().total, 64 * MEBIBYTE);
    assert_eq!(text(&*node, FILE).await.len() as u64, 20 * MEBIBYTE);

    let larger = request(&ground, Some(160));
    let before = pid(&ground).await;
    let node = ground.provider.ensure_node(&larger).await.unwrap();
    assert_ne!(pid(&ground).await, before);
    assert_eq!(space(inside(&ground, "/var/lib/etcd").await).unwrap().total, 160 * MEBIBYTE);
    assert_eq!(text(&*node, FILE).await.len() as u64, 20 * MEBIBYTE);
    let record = observed(&ground).await.unwrap().nodes[&ground.node(0)].record.clone();
    assert_eq!(record, Some(larger.record()));

    for (mebibytes, told) in [(Some(64), "cannot become 64MiB"), (None, "keeps it")] {
        ground.provider.stop_node(&ground.cluster, &ground.node(0), GRACE).await.unwrap();
        let refused = ground.provider.ensure_node(&request(&ground, mebibytes)).await;
        let Err(problem) = refused else { panic!("it is refused") };
        assert_eq!(problem.code, "provider.linux.disk_stays");
        assert!(problem.message.contains(told), "{problem:?}");
        let help = problem.help.unwrap();
        for part in ["write `disk: 160MiB` or more", "bivouac node remove --cluster"] {
            assert!(help.contains(part), "{help}");
        }
        assert_eq!(recorded(&ground).await, Some(larger.resources.disk));
    }
    // What a command leaves that is killed while it makes a disk larger.
    let file = fs::OpenOptions::new().write(true).open(folder(&ground).join("disk.ext4")).unwrap();
    file.set_len(256 * MEBIBYTE).unwrap();
    fs::write(folder(&ground).join("disk.growing"), "").unwrap();
    // One can still go back.
    ground.provider.ensure_node(&larger).await.unwrap();
    assert_eq!(space(inside(&ground, "/var/lib/etcd").await).unwrap().total, 160 * MEBIBYTE);
    assert_eq!(file.metadata().unwrap().len(), 160 * MEBIBYTE);
    ground.provider.stop_node(&ground.cluster, &ground.node(0), GRACE).await.unwrap();
    file.set_len(256 * MEBIBYTE).unwrap();
    fs::write(folder(&ground).join("disk.growing"), "").unwrap();
    let node = ground.provider.ensure_node(&request(&ground, Some(256))).await.unwrap();
    assert_eq!(space(inside(&ground, "/var/lib/etcd").await).unwrap().total, 256 * MEBIBYTE);
    assert_eq!(text(&*node, FILE).await.len() as u64, 20 * MEBIBYTE);
    assert!(!folder(&ground).join("disk.growing").exists());
    write(&*node, FILE, 200).await.unwrap();

    ground.provider.destroy_node(&ground.cluster, &ground.node(0)).await.unwrap();
    assert_eq!(devices(&ground), [""; 0]);
    // One without a disk gets none.
    ground.provider.ensure_node(&request(&ground, None)).await.unwrap();
    ground.provider.stop_node(&ground.cluster, &ground.node(0), GRACE).await.unwrap();
    let Err(problem) = ground.provider.ensure_node(&request(&ground, Some(64))).await else {
        panic!("it is refused")
    };
    assert!(problem.message.ends_with("was made without a disk of its own, and gets none"));
}
