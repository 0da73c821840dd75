//! Problems for people, on standard error, and the exit code that goes with them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use bivouac_spec::{Problem, Problems};

/// Shows problems and returns the exit code of a command that ends with them.
pub fn problems(problems: &Problems, color: bool) -> ExitCode {
    let mut text = String::new();
    for problem in problems.as_slice() {
        render(&mut text, "error", problem, color);
    }
    // Nobody is left to tell when standard error cannot be written.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(problems.class().exit_code())
}

/// Shows a problem that stops nothing.
pub fn warning(problem: &Problem, color: bool) {
    let mut text = String::new();
    render(&mut text, "warning", problem, color);
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// One problem under a heading such as `error` or `warning`.
pub fn render(text: &mut String, heading: &str, problem: &Problem, color: bool) {
    let (start, dim, end) = match (color, heading) {
        (false, _) => ("", "", ""),
        (true, "error") => ("\x1b[1;31m", "\x1b[2m", "\x1b[0m"),
        (true, _) => ("\x1b[1;33m", "\x1b[2m", "\x1b[0m"),
    };
    let place = problem
        .at
        .as_ref()
        .map_or_else(String::new, |at| format!("{}:{}:{}: ", at.file, at.line, at.column));
    let _ = writeln!(
        text,
        "{start}{heading}:{end} {place}{} {dim}[{}]{end}",
        problem.message, problem.code
    );
    for cause in &problem.causes {
        let _ = writeln!(text, "  {dim}because:{end} {}", cause.replace('\n', "\n           "));
    }
    if let Some(help) = &problem.help {
        let _ = writeln!(text, "  hint: {help}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_spec::problem::Location;

    #[test]
    fn a_problem_reads_from_what_to_why_to_what_next() {
        let error = std::io::Error::other("disk on fire");
        let problem = Problem::failed("state.unwritable", "cannot write the state folder")
            .because(&error)
            .help("free some disk")
            .at(Location { file: "cluster.yaml".into(), line: 3, column: 5 });
        let mut text = String::new();
        render(&mut text, "error", &problem, false);
        assert_eq!(
            text,
            "error: cluster.yaml:3:5: cannot write the state folder [state.unwritable]\n  because: disk on fire\n  hint: free some disk\n"
        );
    }
}
