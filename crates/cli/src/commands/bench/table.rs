//! The figures of all runs as a table.

use super::Run;
use crate::output;

/// What is read off a run.
type Figure = fn(&Run) -> f64;

/// Minimum, median and maximum of each figure.
pub fn text(provider: &str, nodes: usize, runs: &[Run]) -> String {
    let mut rows = vec![["", "MIN", "MEDIAN", "MAX"].map(str::to_owned).to_vec()];
    let figures: [(&str, Figure); 5] = [
        ("command returns, s", |run| run.command_returns),
        ("app answers, s", |run| run.app_answers),
        ("DNS answers, s", |run| run.dns_answers),
        ("down, s", |run| run.down),
        ("CPU seconds", |run| run.cpu_seconds),
    ];
    for (name, figure) in figures {
        rows.push(row(name, runs.iter().map(figure).collect(), |value| format!("{value:.2}")));
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
        "{} on {provider}, {}, the node image loaded before\n\n{}",
        count(nodes, "node"),
        count(runs.len(), "run"),
        output::table(&rows)
    )
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

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        let show = |value: f64| value.to_string();
        assert_eq!(row("a", vec![3.0, 1.0, 2.0], show), ["a", "1", "2", "3"]);
        assert_eq!(row("a", vec![4.0, 1.0, 2.0, 3.0], show), ["a", "1", "2.5", "4"]);
    }
}
