//! Bars and spinners on a terminal: one for each running step, one for each node.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bivouac_engine::{Event, Progress, Reporter, StepState, Unit};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::sentence;

const TICK: Duration = Duration::from_millis(120);

struct Bars {
    all: MultiProgress,
    shown: BTreeMap<String, ProgressBar>,
}

/// A reporter that draws bars.
pub fn reporter(color: bool) -> Reporter {
    let bars = Mutex::new(Bars { all: MultiProgress::new(), shown: BTreeMap::new() });
    Reporter::new(move |event| {
        if let Ok(mut bars) = bars.lock() {
            bars.show(&event, color);
        }
    })
}

impl Bars {
    fn show(&mut self, event: &Event, color: bool) {
        match event {
            Event::NodeStarted { node } => self.spinner(node.as_str()).set_message("starts"),
            Event::NodeStatus { status } => {
                if let Some(sentence) = sentence::waiting(status) {
                    self.spinner(status.node.as_str()).set_message(sentence);
                }
            }
            Event::NodeUsable { node, .. } | Event::NodeRemoved { node } => {
                self.finish(node.as_str())
            }
            Event::Step(progress) => self.step(progress),
            _ => {}
        }
        for line in sentence::of(event, color) {
            // A terminal that cannot be written to shows nothing; the outcome is reported elsewhere.
            let _ = self.all.println(line);
        }
    }

    fn step(&mut self, progress: &Progress) {
        match progress.state {
            StepState::Planned => {}
            StepState::Running => {
                let bar = self.bar(progress);
                bar.set_length(progress.total);
                bar.set_position(progress.done);
                let left = sentence::remaining(progress).unwrap_or_default();
                bar.set_message(format!("{}  {left}", sentence::amount(progress)));
            }
            state => {
                self.finish(&progress.step);
                let _ = self.all.println(format!("{}: {}", progress.step, sentence::state(state)));
            }
        }
    }

    fn spinner(&mut self, name: &str) -> &ProgressBar {
        self.shown.entry(name.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix:18} {wide_msg}");
            let bar =
                ProgressBar::new_spinner().with_style(style.expect("the template is well formed"));
            let bar = self.all.add(bar.with_prefix(name.to_owned()));
            bar.enable_steady_tick(TICK);
            bar
        })
    }

    fn bar(&mut self, progress: &Progress) -> &ProgressBar {
        self.shown.entry(progress.step.clone()).or_insert_with(|| {
            let template = match (progress.total, progress.unit) {
                (0, Unit::Items | Unit::Bytes) => "{spinner} {prefix:32} {wide_msg}",
                _ => "{spinner} {prefix:32} [{bar:24}] {wide_msg}",
            };
            let style =
                ProgressStyle::with_template(template).expect("the template is well formed");
            let bar = ProgressBar::new(progress.total).with_style(style.progress_chars("=> "));
            let bar = self.all.add(bar.with_prefix(progress.step.clone()));
            bar.enable_steady_tick(TICK);
            bar
        })
    }

    fn finish(&mut self, name: &str) {
        if let Some(bar) = self.shown.remove(name) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }
}
