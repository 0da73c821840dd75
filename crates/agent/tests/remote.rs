//! Commands over a connection that may be lost: this program runs itself again as `agent exec`.

#![expect(clippy::unwrap_used, reason = "a test without the usual harness")]

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use bivouac_agent::remote::{ExecRequest, exec};
use bivouac_spec::node::stream::{Answer, head};
use libtest_mimic::{Arguments, Failed, Trial};

/// Makes this program `agent exec`; holds `no-input` or nothing.
const EXEC: &str = "BIVOUAC_TEST_EXEC";

fn main() -> ExitCode {
    if let Some(how) = std::env::var_os(EXEC) {
        let command = std::env::args().skip(1).collect();
        let environment = [("ASKED".to_owned(), "for".to_owned())].into();
        let no_input = how == "no-input";
        return exec(&ExecRequest { command, environment, no_input, inherit: false });
    }
    let tests: [(&str, fn()); 7] = [
        ("input and output pass whole", whole),
        ("an exit code is the command's own", codes),
        ("what cannot be started says so first", refused),
        ("the environment is the node's", environment),
        ("a lost connection ends the command and what it started", lost),
        ("a lost connection ends a command that takes nothing", stuffed),
        ("a command may leave its input unread", unread),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

struct Run {
    process: Child,
    input: Option<ChildStdin>,
}

struct Ended {
    code: Option<i32>,
    output: Vec<u8>,
    answer: Answer,
    errors: String,
}

fn run(how: &str, command: &[&str]) -> Run {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(command)
        .env(EXEC, how)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = process.stdin.take();
    Run { process, input }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    [head(bytes.len()).as_slice(), bytes].concat()
}

impl Run {
    fn send(mut self, bytes: &[u8]) -> Self {
        match self.input.as_mut().unwrap().write_all(bytes) {
            // A command that reads nothing may have ended before.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            other => other.unwrap(),
        }
        self
    }

    fn lose(mut self) -> Self {
        self.input = None;
        self
    }

    /// All that it says until nobody can say more: also when a process that it left behind would hold the streams open.
    fn end(mut self) -> Ended {
        let (mut output, mut errors) = (Vec::new(), String::new());
        self.process.stdout.take().unwrap().read_to_end(&mut output).unwrap();
        self.process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        let code = self.process.wait().unwrap().code();
        let (first, rest) = errors.split_once('\n').unwrap();
        Ended { code, output, answer: Answer::parse(first).unwrap(), errors: rest.to_owned() }
    }
}

fn whole() {
    let block: Vec<u8> = (0_u8..=255).cycle().take(60_000).collect();
    let run = run("", &["sh", "-c", "cat; echo end >&2"]);
    let stream = [frame(&block), frame(&block), frame(b"")].concat();
    let ended = run.send(&stream).end();
    assert_eq!((ended.code, ended.answer), (Some(0), Answer::Started(true)));
    assert!(ended.output == [block.clone(), block].concat(), "{} bytes", ended.output.len());
    assert_eq!(ended.errors, "end\n");
}

fn codes() {
    for (script, code) in [("exit 7", 7), ("exit 127", 127), ("kill -9 $$", 137)] {
        let ended = run("no-input", &["sh", "-c", script]).end();
        assert_eq!((ended.code, ended.answer), (Some(code), Answer::Started(true)), "{script}");
    }
}

fn refused() {
    for (command, code, expected) in [
        (vec!["no-such-program"], 127, "agent.exec.not_found"),
        (vec!["/etc/passwd"], 126, "agent.exec.not_executable"),
        (vec![], 2, "agent.exec.no_command"),
    ] {
        let ended = run("", &command).end();
        let Answer::Problem(problem) = ended.answer else { panic!("{command:?} was started") };
        assert_eq!((ended.code, problem.code.as_str()), (Some(code), expected));
        assert_eq!(ended.errors, "");
    }
}

fn environment() {
    let ended = run("no-input", &["sh", "-c", "echo $HOME $ASKED $PWD $BIVOUAC_TEST_EXEC"]).end();
    assert_eq!(ended.output, b"/root for /\n");
}

fn lost() {
    for how in ["", "no-input"] {
        for sent in [frame(b"some"), [frame(b"all"), frame(b"")].concat()] {
            // Both hold standard output, so its end is theirs.
            let run = run(how, &["sh", "-c", "sleep 1000 & sleep 1000"]);
            assert_eq!(run.send(&sent).lose().end().code, Some(137));
        }
    }
}

fn stuffed() {
    let run = run("", &["sleep", "1000"]);
    // More than the command's pipe holds, and less than both pipes and what is on its way between them.
    assert_eq!(run.send(&frame(&[0; 60_000]).repeat(2)).lose().end().code, Some(137));
}

fn unread() {
    let run = run("", &["sh", "-c", "exec 0<&-; echo done"]);
    let ended = run.send(&frame(b"never read")).end();
    assert_eq!((ended.code, ended.output.as_slice()), (Some(0), b"done\n".as_slice()));
}
