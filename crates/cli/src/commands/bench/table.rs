//! The figures of all runs as a table.

use super::figures::{Life, Run};
use crate::output;

/// What is read off a run, where the run has it.
type Figure = fn(&Run) -> Option<f64>;

/// Minimum, median and maximum of each figure.
pub fn text(what: &str, nodes: usize, runs: &[Run]) -> String {
    let mut rows = vec![["", "MIN", "MEDIAN", "MAX"].map(str::to_owned).to_vec()];
    let figures: [(&str, Figure); 14] = [
        ("command returns, s", |run| Some(run.command_returns)),
        ("app answers, s", |run| run.answers.app),
        ("DNS answers, s", |run| run.answers.dns),
        ("instances answer, s", |run| run.answers.instances),
        ("all reach each other, s", |run| run.answers.names),
        ("save, s", |run| life(run, |life| life.save)),
        ("paused for it, s", |run| life(run, |life| life.paused)),
        ("restore, s", |run| life(run, |life| life.restore)),
        ("fork, s", |run| life(run, |life| life.fork)),
        ("stop, s", |run| life(run, |life| life.stop)),
        ("start, s", |run| life(run, |life| life.start)),
        ("a node joins, s", |run| life(run, |life| Some(life.node_joins))),
        ("down, s", |run| Some(run.down)),
        ("CPU seconds", |run| Some(run.cpu_seconds)),
    ];
    for (name, figure) in figures {
        let values: Vec<f64> = runs.iter().filter_map(figure).collect();
        if !values.is_empty() {
            rows.push(row(name, values, |value| format!("{value:.2}")));
        }
    }
    for position in 0..nodes {
        let of_node = runs.iter().filter_map(|run| run.memory.get(position));
        let Some(first) = of_node.clone().next() else { continue };
        #[expect(clippy::cast_precision_loss, reason = "bytes of a node fit")]
        let values = of_node.map(|memory| memory.pss as f64 / 1_048_576.0).collect();
        rows.push(row(&format!("{} PSS, MiB", first.node), values, |value| format!("{value:.0}")));
    }
    let count = |number: usize, thing: &str| {
        if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
    };
    format!(
        "{} of {what}, {}, the node image loaded before\n\n{}",
        count(nodes, "node"),
        count(runs.len(), "run"),
        output::table(&rows)
    )
}

fn life(run: &Run, figure: impl Fn(&Life) -> Option<f64>) -> Option<f64> {
    run.life.as_ref().and_then(figure)
}

fn row(name: &str, mut values: Vec<f64>, show: impl Fn(f64) -> String) -> Vec<String> {
    values.sort_by(f64::total_cmp);
    let Some((first, last)) = values.first().zip(values.last()) else {
        return vec![name.to_owned()];
    };
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    };
    vec![name.to_owned(), show(*first), show(median), show(*last)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::figures::Answers;

    #[test]
    fn only_what_was_measured_is_shown() {
        let answers = Answers { instances: Some(2.0), names: Some(3.0), ..Answers::default() };
        let run = Run { command_returns: 1.0, answers, ..Run::default() };
        assert!((run.answers.last() - 3.0).abs() < f64::EPSILON);
        let shown = |runs: &[Run]| {
            let text = text("incus on linux", 3, runs);
            let names = text.lines().filter_map(|line| line.split_once(", s"));
            names.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        let short = ["command returns", "instances answer", "all reach each other", "down"];
        assert_eq!(shown(std::slice::from_ref(&run)), short);
        let lived = Run { life: Some(Life { node_joins: 1.0, ..Life::default() }), ..run };
        assert!(shown(&[lived]).contains(&"a node joins".to_owned()));
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        let show = |value: f64| value.to_string();
        assert_eq!(row("a", vec![3.0, 1.0, 2.0], show), ["a", "1", "2", "3"]);
        assert_eq!(row("a", vec![4.0, 1.0, 2.0, 3.0], show), ["a", "1", "2.5", "4"]);
    }
}
