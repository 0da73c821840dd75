//! The same cluster made and removed again and again: how long it takes each time, and what goes wrong.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::{Cluster, Ground, HostSnapshot, say};

/// So many rounds make a line of the table: what gets slower with time shows.
const LINE: usize = 10;

/// What one creation and deletion took, and what was wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// From the command to its end: the cluster is usable.
    pub up: Duration,
    /// From the command to its end: nothing of it is there.
    pub down: Duration,
    /// A sentence for each thing that failed or stayed.
    pub faults: Vec<String>,
}

/// All rounds.
#[derive(Debug)]
pub struct Soak(Vec<Round>);

impl Soak {
    /// Makes and removes a cluster of one node this many times.
    ///
    /// # Panics
    /// When the host cannot be looked at.
    #[must_use]
    pub fn run(ground: &Ground, count: usize) -> Self {
        let cluster = ground.cluster("soak");
        let before = HostSnapshot::take(ground);
        let mut rounds = Vec::with_capacity(count);
        for number in 1..=count {
            let round = round(&cluster, &before);
            let (up, down) = (round.up.as_secs_f64(), round.down.as_secs_f64());
            let faults = round.faults.join("; ");
            say(&format!("{number} of {count}: up {up:.2} s, down {down:.2} s {faults}"));
            rounds.push(round);
        }
        Self(rounds)
    }

    /// How many rounds had something wrong with them.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.0.iter().filter(|round| !round.faults.is_empty()).count()
    }
}

fn round(cluster: &Cluster<'_>, before: &HostSnapshot) -> Round {
    let mut round = Round::default();
    let started = Instant::now();
    let up = attempt(|| drop(cluster.up_single().success()));
    round.up = started.elapsed();
    let used = up.and_then(|()| attempt(|| is_used(cluster)));
    round.faults.extend(used.err());
    let started = Instant::now();
    let down = attempt(|| drop(cluster.down().success()));
    round.down = started.elapsed();
    round.faults.extend(down.err());
    let left = HostSnapshot::take(cluster.ground()).differences(before);
    round.faults.extend(left);
    round
}

/// What `up` says is so: `status` finds nothing wrong, and the API takes and gives.
fn is_used(cluster: &Cluster<'_>) {
    let _ = cluster.ground().bivouac(["status", cluster.name()]).success();
    let _ = cluster.kubectl(["create", "configmap", "soak", "--from-literal=word=kept"]).success();
    let word = ["get", "configmap", "soak", "-o", "jsonpath={.data.word}"];
    assert_eq!(cluster.kubectl(word).success().stdout(), "kept");
    let ready = ["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=10s"];
    let _ = cluster.kubectl(ready).success();
}

/// The message of its panic, if it has one.
fn attempt(what: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}

/// Least, middle and greatest, in seconds.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |index: usize| times.get(index).copied().unwrap_or_default().as_secs_f64();
    let last = times.len().saturating_sub(1);
    format!("{:.2} / {:.2} / {:.2}", at(0), at(last / 2), at(last))
}

impl fmt::Display for Soak {
    /// As a table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| rounds | `up`: least / median / greatest, s | `down`, s | failed or left something |"
        )?;
        writeln!(f, "|---|---|---|---|")?;
        let mut line = |name: String, rounds: &[Round]| {
            let ups = spread(rounds.iter().map(|round| round.up).collect());
            let downs = spread(rounds.iter().map(|round| round.down).collect());
            let failed = rounds.iter().filter(|round| !round.faults.is_empty()).count();
            writeln!(f, "| {name} | {ups} | {downs} | {failed} |")
        };
        for (index, rounds) in self.0.chunks(LINE).enumerate() {
            let first = index * LINE + 1;
            line(format!("{first} to {}", first + rounds.len() - 1), rounds)?;
        }
        line(format!("all {}", self.0.len()), &self.0)?;
        let faults = self.0.iter().enumerate().flat_map(|(index, round)| {
            round.faults.iter().map(move |fault| (index + 1, fault.lines().next().unwrap_or("")))
        });
        for (number, fault) in faults {
            writeln!(f, "\n- round {number}: {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_times_and_faults() {
        let round = |seconds: u64, faults: &[&str]| Round {
            up: Duration::from_secs(seconds),
            down: Duration::from_secs(1),
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        };
        let mut rounds = vec![round(4, &[]); 10];
        rounds.push(round(9, &["links: new: bv-1\nmore"]));
        let soak = Soak(rounds);
        assert_eq!(soak.failed(), 1);
        let text = soak.to_string();
        for line in [
            "| 1 to 10 | 4.00 / 4.00 / 4.00 | 1.00 / 1.00 / 1.00 | 0 |",
            "| 11 to 11 | 9.00 / 9.00 / 9.00 | 1.00 / 1.00 / 1.00 | 1 |",
            "| all 11 | 4.00 / 4.00 / 9.00 | 1.00 / 1.00 / 1.00 | 1 |",
            "- round 11: links: new: bv-1",
        ] {
            assert!(text.contains(line), "no `{line}` in {text}");
        }
    }
}
