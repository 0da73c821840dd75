//! Sets of processors, as the kernel writes them: as lists (`0-3,8`) and as maps (`10f`, words of 32 bits). Pure.

use std::collections::BTreeSet;

/// Numbers of processors.
pub(super) type Cpus = BTreeSet<u32>;

const WORD: u32 = 32;

/// Reads a list. What makes no sense is left out.
pub(super) fn parse_list(text: &str) -> Cpus {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
    });
    ranges.flatten().collect()
}

/// Writes a list, with a newline as the kernel does.
pub(super) fn render_list(cpus: &Cpus) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let range = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",") + "\n"
}

/// A map with only those processors that are kept, as wide as it was.
fn restrict_map(text: &str, keep: &Cpus) -> String {
    let words: Vec<&str> = text.trim().split(',').collect();
    let restricted = words.iter().rev().zip(0..).map(|(word, index)| {
        let mask = (0..WORD).filter(|bit| keep.contains(&(index * WORD + bit)));
        let mask = mask.fold(0, |mask, bit| mask | 1 << bit);
        let value = u32::from_str_radix(word, 16).unwrap_or_default() & mask;
        format!("{value:0width$x}", width = word.len())
    });
    let mut restricted: Vec<String> = restricted.collect();
    restricted.reverse();
    restricted.join(",") + "\n"
}

/// The content of a file of this name with only those processors that are kept.
pub(super) fn restrict(name: &str, text: &str, keep: &Cpus) -> String {
    let is_map =
        name == "cpumap" || ["_map", "_siblings", "_cpus"].iter().any(|end| name.ends_with(end));
    if is_map {
        restrict_map(text, keep)
    } else if name == "cpulist" || name.ends_with("_list") {
        render_list(&parse_list(text).intersection(keep).copied().collect())
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_back() {
        for (text, cpus) in
            [("0\n", vec![0]), ("0-2,5\n", vec![0, 1, 2, 5]), ("\n", vec![]), ("7,9\n", vec![7, 9])]
        {
            let cpus: Cpus = cpus.into_iter().collect();
            assert_eq!(parse_list(text), cpus);
            assert_eq!(render_list(&cpus), text);
        }
    }

    #[test]
    fn maps_and_lists_keep_what_is_left() {
        let keep = Cpus::from([0, 1, 33]);
        for (name, text, left) in [
            ("shared_cpu_map", "f\n", "3\n"),
            ("core_siblings", "0000000f,ffffffff\n", "00000002,00000003\n"),
            ("package_cpus", "3,fffffff0\n", "2,00000000\n"),
            ("shared_cpu_list", "0-3,32-35\n", "0-1,33\n"),
            ("cpulist", "2-3\n", "\n"),
            ("core_id", "3\n", "3\n"),
        ] {
            assert_eq!(restrict(name, text, &keep), left, "{name}");
        }
    }
}
