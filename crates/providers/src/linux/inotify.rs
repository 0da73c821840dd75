//! Watches of the kernel: each node takes a handful of instances, and all nodes of a machine share those of root, of which most
//! distributions allow 128. That is raised while there are clusters.

use bivouac_spec::Problem;
use bivouac_sys::sysctl;

use super::parameters::{Change, Notes};

/// Parameters, and enough for a few hundred nodes.
const ENOUGH: [(&str, &str); 2] =
    [("fs.inotify.max_user_instances", "8192"), ("fs.inotify.max_user_watches", "1048576")];

/// Raises what is too low. A host where that is not permitted is left as it is: the survey has said so.
pub(super) fn ensure() -> Result<(), Problem> {
    let low = ENOUGH.iter().filter(|(parameter, enough)| is_low(parameter, enough));
    let low: Vec<Change> =
        low.map(|(parameter, enough)| Change::new((*parameter).to_owned(), enough)).collect();
    if low.is_empty() {
        return Ok(());
    }
    let notes = Notes::of_machine();
    let _lock = notes.lock("raise limits of inotify")?;
    for change in low {
        if can_be_set(&change.parameter) {
            change.make(&notes)?;
        }
    }
    notes.tidy();
    Ok(())
}

fn is_low(parameter: &str, enough: &str) -> bool {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let now = sysctl::read(parameter).ok();
    now.and_then(|now| number(&now)).zip(number(enough)).is_some_and(|(now, enough)| now < enough)
}

/// Tried by setting it to what it is.
pub(super) fn can_be_set(parameter: &str) -> bool {
    sysctl::read(parameter).and_then(|now| sysctl::write(parameter, &now)).is_ok()
}

/// Whether it is better left as it is when the last cluster goes: who changed it again meanwhile wants it so.
pub(super) fn is_theirs(parameter: &str) -> bool {
    let own = ENOUGH.iter().find(|(own, _)| *own == parameter);
    own.is_some_and(|(_, enough)| sysctl::read(parameter).is_ok_and(|now| now != *enough))
}
