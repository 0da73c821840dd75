//! A disk that has no room left.

use bivouac_sys::mount::{Attributes, Filesystem, Propagation, mount, set_propagation};
use bivouac_sys::namespace::{Namespace, unshare};

use super::*;

const DISK: usize = 64 << 10;

/// Pulls with a disk that a layer of this image and something of nobody's fill; what is kept then, and what was said.
fn pull_onto_a_full_disk(old: usize) -> bivouac_sys::Result<(bool, bool, Host)> {
    unshare(&[Namespace::Mount])?;
    set_propagation("/", Propagation::Private, true)?;
    let (host, registry) = (Host::new(), Registry::start(Mood::Open));
    let disk = Filesystem::Tmpfs { size: Some(DISK as u64), mode: 0o700 };
    mount(&disk, &host.folder, Attributes::default())?;
    let folder = Folder::open(&host.folder).unwrap();
    let earlier = folder::tests::put(&folder, &vec![1; old]);
    let other = vec![0; DISK];
    let mut file = std::fs::File::create(host.folder.join("of another")).unwrap();
    assert!(file.write_all(&other).is_err(), "it takes all that is left");

    pull(host.node(registry.upstream(None)));
    let kept = [LAYER, MANIFEST].iter().all(|content| folder.blob(&Digest::of(content)).is_some());
    Ok((kept, folder.blob(&earlier).is_some(), host))
}

/// Only root can mount; whoever else runs this sees that they cannot.
fn as_root(test: impl FnOnce() -> bivouac_sys::Result<()> + Send + 'static) {
    let outcome = std::thread::spawn(test).join().unwrap();
    assert_eq!(outcome.is_ok(), rustix::process::geteuid().is_root(), "{outcome:?}");
}

#[test]
fn what_is_not_used_gives_way_to_what_is_pulled() {
    as_root(|| {
        let (kept, earlier, host) = pull_onto_a_full_disk(DISK / 2)?;
        assert!(kept && !earlier, "{:?}", locked(&host.log));
        assert!(host.said("1 were removed"), "{:?}", locked(&host.log));
        Ok(())
    });
}

#[test]
fn nothing_goes_where_it_would_not_help() {
    as_root(|| {
        let (kept, earlier, host) = pull_onto_a_full_disk(1)?;
        assert!(!kept && earlier, "{:?}", locked(&host.log));
        assert!(host.said("is not kept"), "{:?}", locked(&host.log));
        Ok(())
    });
}
