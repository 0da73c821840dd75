//! `bivouac events`

use std::process::ExitCode;
use std::time::Duration;

use bivouac_engine::{Entry, Event, Events};
use bivouac_spec::{Problem, Problems};
use tokio::time::{MissedTickBehavior, interval};

use crate::args::{self, EventFormat, Global};
use crate::output;
use crate::progress::sentence;
use crate::selection::{open_state, pick};

/// How often a record that is followed is looked at. Watches of the kernel are few (`fs.inotify.max_user_instances`), and nodes need
/// them themselves.
const PROBE: Duration = Duration::from_millis(100);

pub async fn run(global: &Global, arguments: &args::Events) -> Result<ExitCode, Problems> {
    let state = open_state(global);
    let mut names = state.clusters()?;
    let name = names.swap_remove(pick(arguments.chosen.cluster.as_ref(), &names)?);
    let (entries, mut followed) = Events::of(&state, &name).follow()?;
    let first = arguments.tail.map_or(0, |tail| entries.len().saturating_sub(tail));
    write(&entries[first..], arguments.output)?;
    if !arguments.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut ticks = interval(PROBE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(entries) = followed.more()? {
        write(&entries, arguments.output)?;
        ticks.tick().await;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(entries: &[Entry], format: EventFormat) -> Result<(), Problem> {
    for entry in entries {
        let text = match format {
            EventFormat::Text => text(entry),
            EventFormat::Json => {
                serde_json::to_string(entry).expect("an event has string keys only") + "\n"
            }
        };
        output::raw(text.as_bytes())?;
    }
    Ok(())
}

/// A line for each thing that an event says; none where it says nothing to people.
fn text(entry: &Entry) -> String {
    let Entry { time, bivouac, verb, event } = entry;
    let lines = match event {
        Event::Started { .. } => vec![format!("began, by bivouac {bivouac}")],
        Event::NodeStarted { node } => vec![format!("{node}: started")],
        Event::Planned { actions } if actions.is_empty() => vec!["nothing to change".to_owned()],
        Event::Ended { after, problems, .. } if problems.is_empty() => {
            vec![format!("done, {}", sentence::seconds(*after))]
        }
        Event::Ended { after, problems, .. } => {
            let mut lines = vec![format!("failed, {}", sentence::seconds(*after))];
            for problem in problems {
                lines.push(format!("  {} [{}]", problem.message, problem.code));
                lines.extend(problem.causes.iter().map(|cause| format!("    because: {cause}")));
            }
            lines
        }
        event => sentence::of(event, false),
    };
    let head = format!("{time:.0}  {verb:<8}");
    lines.iter().flat_map(|line| line.lines()).map(|line| format!("{head} {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: Event) -> Entry {
        Entry {
            time: "2026-11-21T13:44:27.5Z".parse().unwrap(),
            bivouac: "0.1.0".to_owned(),
            verb: "up".to_owned(),
            event,
        }
    }

    #[test]
    fn events_read_as_lines() {
        let (verb, node) = (|| "up".to_owned(), || "worker-0".parse().unwrap());
        let mut problem = Problem::failed("a.b", "it broke");
        problem.causes.push("one\ntwo".to_owned());
        let events = [
            Event::Started { verb: verb(), cluster: "demo".parse().unwrap() },
            Event::Planned { actions: vec!["create node worker-0".to_owned()] },
            Event::Planned { actions: Vec::new() },
            Event::NodeStarted { node: node() },
            Event::NodeUsable { node: node(), after: 2500 },
            Event::Ended { verb: verb(), after: 4200, problems: Vec::new() },
            Event::Ended { verb: verb(), after: 4200, problems: vec![problem] },
        ];
        let told: String = events.into_iter().map(|event| text(&entry(event))).collect();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "2026-11-21T13:44:27Z  up       began, by bivouac 0.1.0");
        let said: Vec<&str> = lines.iter().map(|line| &line[31..]).collect();
        let expected = [
            "began, by bivouac 0.1.0",
            "create node worker-0",
            "nothing to change",
            "worker-0: started",
            "worker-0: usable, 2.5 s after its start",
            "done, 4.2 s",
            "failed, 4.2 s",
            "  it broke [a.b]",
            "    because: one",
            "two",
        ];
        assert_eq!(said, expected);
    }
}
