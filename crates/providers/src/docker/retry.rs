//! What is tried anew when a node cannot be started. Pure.

use bivouac_provider::NodeRequest;
use bivouac_spec::Problem;
use camino::{Utf8Path, Utf8PathBuf};

use super::container::{MODULES, Offer};
use super::problem::port_taken;

/// How often a node is tried with another port, or with less, before it is given up.
pub(super) const ATTEMPTS: usize = 6;

/// What a node is tried with next, after its engine said this. Nothing, where that would be of no use.
pub(super) fn next_offer(said: &str, offer: &Offer, request: &NodeRequest) -> Option<Offer> {
    let next = offer.clone();
    let lacks = |folder: &Option<Utf8PathBuf>| {
        folder.as_deref().is_some_and(|folder| is_missing(said, folder))
    };
    if said.contains(MODULES) && offer.modules {
        return Some(Offer { modules: false, ..next });
    }
    // It is on another machine after all, or has other mounts than we have.
    if lacks(&offer.shared_images) {
        return Some(Offer { shared_images: None, ..next });
    }
    if lacks(&offer.shared_cache) {
        return Some(Offer { shared_cache: None, ..next });
    }
    if lacks_rights(said) && offer.privileged {
        return Some(Offer { privileged: false, ..next });
    }
    let chooses = request.ports.iter().any(|port| port.host_port.is_none());
    (is_port_taken(said) && chooses).then_some(next)
}

/// The problem of a node that is given up after its engine said this.
pub(super) fn given_up(said: &str, problem: Problem) -> Problem {
    if !is_port_taken(said) {
        return problem;
    }
    let mut taken = port_taken(&problem.message);
    taken.causes = problem.causes;
    taken
}

/// dockerd: `bind source path does not exist: PATH`. podman: `statfs PATH: no such file or directory`.
fn is_missing(said: &str, folder: &Utf8Path) -> bool {
    let missing = said.contains("path does not exist") || said.contains("no such file");
    missing && said.contains(folder.as_str())
}

/// runc 1.1: `unable to apply caps: operation not permitted`.
fn lacks_rights(said: &str) -> bool {
    said.contains("unable to apply caps") || said.contains("can't apply capabilities")
}

fn is_port_taken(said: &str) -> bool {
    said.contains("port is already allocated") || said.contains("address already in use")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::samples;
    use bivouac_spec::Class;

    const PORT: &str = "Bind for 127.0.0.1:80 failed: port is already allocated";

    fn all() -> Offer {
        let shared_images = Some("/store/images".into());
        let shared_cache = Some("/store/cache".into());
        Offer { privileged: true, devices: Vec::new(), modules: true, shared_images, shared_cache }
    }

    #[test]
    fn what_an_engine_lacks_is_left_out_once() {
        let request = samples::node();
        for (said, next) in [
            (
                "OCI runtime create failed: unable to apply caps: operation not permitted",
                Offer { privileged: false, ..all() },
            ),
            ("error mounting \"/lib/modules\"", Offer { modules: false, ..all() }),
            (
                "invalid mount config for type \"bind\": bind source path does not exist: /store/images",
                Offer { shared_images: None, ..all() },
            ),
            (
                "statfs /store/cache: no such file or directory",
                Offer { shared_cache: None, ..all() },
            ),
        ] {
            assert_eq!(next_offer(said, &all(), &request).as_ref(), Some(&next));
            assert_eq!(next_offer(said, &next, &request), None);
        }
        assert_eq!(next_offer("bind source path does not exist: /x", &all(), &request), None);
    }

    #[test]
    fn only_a_port_that_is_ours_to_choose_is_chosen_anew() {
        let mut request = samples::node();
        assert_eq!(next_offer(PORT, &all(), &request), Some(all()));
        request.ports[0].host_port = Some(80);
        assert_eq!(next_offer(PORT, &all(), &request), None);
        let mut problem = Problem::failed("provider.docker.start", "node a cannot be started");
        problem.causes.push(PORT.to_owned());
        let taken = given_up(PORT, problem.clone());
        assert_eq!((taken.class, taken.causes), (Class::Unfit, vec![PORT.to_owned()]));
        assert_eq!(given_up("no", problem.clone()), problem);
    }
}
