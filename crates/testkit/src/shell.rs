//! A shell that is typed into, one line after the other, as a person does it.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long one line may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// What stands before the exit code behind a line's output; no program of ours prints it.
const END: char = '\u{1e}';
/// As at a terminal: jobs have numbers, and curl draws no meter between the lines.
const PRELUDE: &str = "set -m; curl() { command curl -sS --max-time 20 \"$@\"; }\n";

/// A running `bash`, which keeps its variables and its folder from one line to the next.
#[derive(Debug)]
pub struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    errors: std::path::PathBuf,
}

/// What a line said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl Shell {
    /// Starts `command`, which must be a bash that reads its input. What its lines write to standard error goes to `errors`.
    pub async fn start(mut command: Command, errors: &std::path::Path) -> Self {
        let log = std::fs::File::create(errors).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        input.write_all(PRELUDE.as_bytes()).await.unwrap();
        Self { child, input, output, errors: errors.to_path_buf() }
    }

    /// Types one line and waits for what it says.
    pub async fn line(&mut self, line: &str) -> Answer {
        let before = self.said().len();
        // Programs must not read what is typed after them.
        let typed = format!("{{ {line}\n}} < /dev/null\nprintf '{END}%s\\n' $?\n");
        self.input.write_all(typed.as_bytes()).await.unwrap();
        let Ok((out, code)) = tokio::time::timeout(PATIENCE, self.until_end()).await else {
            panic!("`{line}` did not end within {PATIENCE:?}: {}", self.said())
        };
        Answer { code, out, err: self.said().get(before..).unwrap_or_default().to_owned() }
    }

    /// Leaves the shell, as `exit` does.
    pub async fn end(self) {
        let Self { mut child, input, .. } = self;
        drop(input);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        assert!(ended.is_ok_and(|status| status.is_ok()), "the shell does not end");
    }

    async fn until_end(&mut self) -> (String, i32) {
        let mut out = String::new();
        loop {
            let mut bytes = Vec::new();
            let read = self.output.read_until(b'\n', &mut bytes).await.unwrap();
            assert!(read > 0, "the shell ended: {out}\n{}", self.said());
            let line = String::from_utf8_lossy(&bytes);
            match line.split_once(END) {
                Some((last, code)) => {
                    out.push_str(last);
                    return (out, code.trim().parse().unwrap());
                }
                None => out.push_str(&line),
            }
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }
}
