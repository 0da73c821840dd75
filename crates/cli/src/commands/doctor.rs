//! `bivouac doctor`

use std::fmt::Write as _;
use std::process::ExitCode;

use bivouac_spec::cluster::Provider as ProviderSpec;
use bivouac_spec::facts::{Outcome, Survey};
use bivouac_spec::{Class, Problems};

use crate::args::{self, Global};
use crate::output;
use crate::selection::open_provider;

pub async fn run(global: &Global, arguments: &args::Doctor) -> Result<ExitCode, Problems> {
    let provider = open_provider(global, &ProviderSpec::default());
    let survey = provider.survey().await?;
    output::write(arguments.output, &survey, || text(&survey))?;
    let fit = survey.unmet().is_empty();
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::from(Class::Unfit.exit_code()) })
}

fn text(survey: &Survey) -> String {
    let mut text = String::new();
    for need in &survey.needs {
        let (word, said) = match &need.outcome {
            Outcome::Met(seen) => ("ok", seen),
            Outcome::Limited(problem) => ("limited", &problem.message),
            Outcome::Unmet(problem) => ("missing", &problem.message),
        };
        let _ = writeln!(text, "{word:8} {}: {said}", need.name);
        if let Outcome::Limited(problem) | Outcome::Unmet(problem) = &need.outcome {
            for cause in &problem.causes {
                let _ = writeln!(text, "         because: {cause}");
            }
            if let Some(help) = &problem.help {
                let _ = writeln!(text, "         hint: {help}");
            }
        }
    }
    let unmet = survey.unmet().len();
    let _ = match unmet {
        0 => writeln!(text, "\nthis machine can bring up clusters"),
        1 => writeln!(text, "\none need is not met: no cluster comes up before it is"),
        many => writeln!(text, "\n{many} needs are not met: no cluster comes up before they are"),
    };
    text
}
