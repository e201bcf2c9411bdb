//! Real process trees under a real shepherd. Every process of a tree inherits the writing end of one pipe, so the end of the
//! file is the proof that none of them lives any more.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking, as the test does")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far more than the five seconds of grace.
const PATIENCE: Duration = Duration::from_secs(30);

/// Children, grandchildren that left the group, and a daemon that forked twice; `ready` is printed when all exist.
const TREE: &str = r"
sleep 1000 & setsid sleep 1000 &
setsid sh -c 'setsid sleep 1000 & exit 0'
echo ready
wait
";
/// The same, deaf to polite requests.
const STUBBORN: &str = r#"
trap '' TERM INT HUP
setsid sh -c 'trap "" TERM; sleep 1000 & sleep 1000' &
echo ready
while :; do sleep 1000; done
"#;
/// Holds the lifeline and starts the shepherd, as a supervisor does.
const SUPERVISOR: &str = r#"
import socket, subprocess, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
shepherd = subprocess.Popen([sys.argv[2], "__shepherd", "--lifeline", sys.argv[1], "--own-group", "--", "sh", "-c", sys.argv[3]])
held = listener.accept()
shepherd.wait()
"#;

fn supervisor(folder: &Path, tree: &str) -> (Child, BufReader<ChildStdout>) {
    let mut parent = Command::new("python3")
        .args(["-c", SUPERVISOR])
        .arg(folder.join("lifeline"))
        .args([env!("CARGO_BIN_EXE_hms-proxy"), tree])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(parent.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (parent, output)
}

/// Waits until nobody holds the pipe.
fn all_gone(mut output: BufReader<ChildStdout>) {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let read = output.read_to_end(&mut rest);
        sender.send(read.map(|_| rest)).unwrap();
    });
    receiver.recv_timeout(PATIENCE).expect("a descendant still lives").unwrap();
}

fn kill_9(child: &Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn every_descendant_ends_when_the_supervisor_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut parent, output) = supervisor(folder.path(), TREE);
    kill_9(&parent);
    parent.wait().unwrap();
    all_gone(output);
}

#[test]
fn descendants_that_ignore_sigterm_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut parent, output) = supervisor(folder.path(), STUBBORN);
    kill_9(&parent);
    parent.wait().unwrap();
    all_gone(output);
}

/// A shepherd whose supervisor is this test.
fn shepherd(listener_path: &Path, tree: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hms-proxy"));
    command.args(["__shepherd", "--own-group", "--lifeline"]).arg(listener_path).args(["--", "sh", "-c", tree]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[test]
fn the_exit_code_is_the_applications_and_what_it_left_behind_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lifeline");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut child = shepherd(&path, "setsid sleep 1000 & echo ready; exit 42").spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(42));
    all_gone(output);
    let killed = shepherd(&path, "kill -KILL $$").status().unwrap();
    assert_eq!(killed.code(), Some(137));
    let missing = Command::new(env!("CARGO_BIN_EXE_hms-proxy"))
        .args(["__shepherd", "--lifeline"])
        .arg(&path)
        .args(["--", "/no/such/program"])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("HMS-1103"));
}

#[test]
fn a_killed_shepherd_takes_the_application_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lifeline");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut child = shepherd(&path, "echo ready; exec sleep 1000").spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    kill_9(&child);
    child.wait().unwrap();
    all_gone(output);
}

#[test]
fn without_a_supervisor_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let output = shepherd(&folder.path().join("nobody"), "echo started").output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}
