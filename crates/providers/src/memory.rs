//! Limits of memory that a node can do without, whatever the ground.

use bivouac_spec::Problem;
use bivouac_spec::quantity::Bytes;

/// Refuses less memory than a node that runs cannot do without, with a problem of this provider. `label` names the node; what is not
/// counted is not known, and so is no obstacle.
pub(crate) fn check(
    provider: &str,
    label: &str,
    limit: Option<Bytes>,
    used: Option<u64>,
) -> Result<(), Problem> {
    match (limit, used) {
        (Some(limit), Some(used)) if used > limit.0 => {
            Err(too_little(provider, label, limit, used))
        }
        _ => Ok(()),
    }
}

/// The node uses more than it is to have. Both are told in the same unit.
pub(crate) fn too_little(provider: &str, label: &str, limit: Bytes, used: u64) -> Problem {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let message = format!(
        "node {label} cannot be limited to {} MiB of memory: it uses {} MiB",
        mebibytes(limit.0),
        mebibytes(used)
    );
    Problem::failed(format!("provider.{provider}.memory_in_use"), message).help(
        "choose a larger `resources.memory` in the cluster file, or stop something in the node",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_less_than_is_used_is_refused() {
        let ask = |limit: Option<u64>, used| check("linux", "demo/a", limit.map(Bytes), used);
        for (limit, used) in [(None, Some(5)), (Some(5), None), (Some(5), Some(5))] {
            assert_eq!(ask(limit, used), Ok(()));
        }
        let problem = ask(Some(512 << 20), Some((700 << 20) + 1)).unwrap_err();
        assert_eq!(problem.code, "provider.linux.memory_in_use");
        let text = "node demo/a cannot be limited to 512 MiB of memory: it uses 701 MiB";
        assert_eq!(problem.message, text);
    }
}
