//! `bivouac doctor`

use std::fmt::Write as _;
use std::process::ExitCode;

use bivouac_engine::Ground;
use bivouac_providers::is_absent;
use bivouac_spec::facts::{Outcome, Survey};
use bivouac_spec::{Class, Problem, Problems};
use serde::Serialize;

use crate::args::{self, Global, ProviderName};
use crate::grounds::open_ground;
use crate::output;

/// What can be said of one ground.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    provider: &'static str,
    /// Whether clusters come up there.
    fit: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    survey: Option<Survey>,
    /// Why nothing can be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

pub async fn run(global: &Global, arguments: &args::Doctor) -> Result<ExitCode, Problems> {
    if let Some(asked) = arguments.provider {
        return one(global, asked, arguments.output).await;
    }
    let grounds = bivouac_providers::all();
    let reports = grounds.iter().map(|settings| report(open_ground(global, settings)));
    let reports = futures::future::join_all(reports).await;
    output::write(arguments.output, &reports, || text(&reports))?;
    Ok(exit_code(reports.iter().any(|report| report.fit)))
}

async fn one(
    global: &Global,
    asked: ProviderName,
    format: args::Format,
) -> Result<ExitCode, Problems> {
    let ground = open_ground(global, &asked.settings());
    let survey = ground.provider.survey().await?;
    let fit = survey.unmet().is_empty();
    output::write(format, &survey, || survey_text(&survey) + &verdict(&survey, "this ground"))?;
    Ok(exit_code(fit))
}

fn exit_code(fit: bool) -> ExitCode {
    if fit { ExitCode::SUCCESS } else { ExitCode::from(Class::Unfit.exit_code()) }
}

async fn report(ground: Ground) -> Report {
    let provider = ground.settings.name();
    match ground.provider.survey().await {
        Ok(survey) => {
            let fit = survey.unmet().is_empty();
            Report { provider, fit, survey: Some(survey), problem: None }
        }
        Err(problem) => Report { provider, fit: false, survey: None, problem: Some(problem) },
    }
}

fn text(reports: &[Report]) -> String {
    let mut text = String::new();
    for (index, report) in reports.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let _ = writeln!(text, "on {}:", report.provider);
        if let Some(survey) = &report.survey {
            text.push_str(&survey_text(survey));
            text.push_str(&verdict(survey, report.provider));
        }
        if let Some(problem) = &report.problem {
            let word = if is_absent(problem) { "not there: " } else { "missing  " };
            let _ = writeln!(text, "{word}{}", problem.message);
            details(&mut text, problem);
        }
    }
    text
}

fn survey_text(survey: &Survey) -> String {
    let mut text = String::new();
    for need in &survey.needs {
        let (word, said) = match &need.outcome {
            Outcome::Met(seen) => ("ok", seen),
            Outcome::Limited(problem) => ("limited", &problem.message),
            Outcome::Unmet(problem) => ("missing", &problem.message),
        };
        let _ = writeln!(text, "{word:8} {}: {said}", need.name);
        if let Outcome::Limited(problem) | Outcome::Unmet(problem) = &need.outcome {
            details(&mut text, problem);
        }
    }
    text
}

fn details(text: &mut String, problem: &Problem) {
    for cause in &problem.causes {
        let _ = writeln!(text, "         because: {cause}");
    }
    if let Some(help) = &problem.help {
        let _ = writeln!(text, "         hint: {help}");
    }
}

fn verdict(survey: &Survey, ground: &str) -> String {
    let unmet = survey.unmet();
    // The linux ground tries what makes namespaces, mounts and links only as root.
    let untried = if unmet.iter().any(|problem| problem.code.ends_with(".not_root")) {
        "untried: control groups, namespaces, mounts, links and packet filters; run `sudo bivouac doctor` to try them\n"
    } else {
        ""
    };
    let verdict = match unmet.len() {
        0 => format!("{ground} can bring up clusters"),
        1 => format!("one need of {ground} is not met: no cluster comes up on it before it is"),
        many => format!(
            "{many} needs of {ground} are not met: no cluster comes up on it before they are"
        ),
    };
    format!("{untried}\n{verdict}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_provider::Provider as _;
    use bivouac_provider::fake::Fake;
    use bivouac_spec::facts::Need;

    #[tokio::test]
    async fn each_ground_is_told_by_its_name_and_what_was_left_out_too() {
        let survey = Fake::new().survey().await.unwrap();
        let mut poor = survey.clone();
        let problem =
            Problem::new(Class::Unfit, "provider.linux.not_root", "bivouac is not run by root")
                .help("run it with sudo");
        poor.needs.push(Need { name: "be root".to_owned(), outcome: Outcome::Unmet(problem) });
        let absent = Problem::new(Class::Unfit, "provider.docker.no_engine", "no engine answers")
            .help("start one");
        let reports = [
            Report { provider: "fake", fit: true, survey: Some(survey), problem: None },
            Report { provider: "linux", fit: false, survey: Some(poor), problem: None },
            Report { provider: "docker", fit: false, survey: None, problem: Some(absent) },
        ];
        let expected = "\
on fake:
ok       exist: it is in memory

fake can bring up clusters

on linux:
ok       exist: it is in memory
missing  be root: bivouac is not run by root
         hint: run it with sudo
untried: control groups, namespaces, mounts, links and packet filters; run `sudo bivouac doctor` to try them

one need of linux is not met: no cluster comes up on it before it is

on docker:
not there: no engine answers
         hint: start one
";
        assert_eq!(text(&reports), expected);
    }
}
