//! Starting the application, tied to the life of its parent and with no more rights than it should have.
#![expect(unsafe_code, reason = "what happens between fork and exec is for nobody else to check")]

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::seccomp;

/// Which capabilities an application may ever have (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// Those of its parent.
    Same,
    /// Those of root, but not over its network and its mounts.
    Root,
    /// None.
    None,
}

/// Starts it. If this process dies, the kernel kills it.
pub(super) fn start(words: &[OsString], own_group: bool, rights: Rights) -> io::Result<Child> {
    prepare(words, own_group, rights)?.spawn()
}

/// Starts it so that this process is asked about some of its calls; and where the questions arrive.
pub(super) fn start_asking(words: &[OsString], own_group: bool) -> io::Result<(Child, OwnedFd)> {
    let (own, its) = UnixStream::pair()?;
    let mut command = prepare(words, own_group, Rights::Same)?;
    let before = move || {
        let listener = seccomp::install()?;
        // Neither write(2) nor read(2) is asked about. The answer says that the listener has been taken: it is closed by exec.
        (&its).write_all(&std::process::id().to_ne_bytes())?;
        (&its).write_all(&listener.to_ne_bytes())?;
        (&its).read_exact(&mut [0])
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(before) };
    let taking = std::thread::spawn(move || take_listener(&own));
    let child = command.spawn();
    // The other end must close, also where the program does not start.
    drop(command);
    let listener = taking.join().unwrap_or_else(|_panic| Err(io::ErrorKind::Other.into()));
    match (child, listener) {
        (Ok(child), Ok(listener)) => Ok((child, listener)),
        (Err(error), _) => Err(error),
        (Ok(mut child), Err(error)) => {
            // It waits for our word and has executed nothing.
            let _ended_already = child.kill().and_then(|()| child.wait()).is_err();
            Err(error)
        }
    }
}

/// Takes the listener from the process that has installed the filter and not yet become the application.
fn take_listener(link: &UnixStream) -> io::Result<OwnedFd> {
    let mut told = [0; 8];
    (&*link).read_exact(&mut told)?;
    let [pid, listener] = [told.first_chunk::<4>(), told.last_chunk::<4>()]
        .map(|word| i32::from_ne_bytes(word.copied().unwrap_or_default()));
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let listener = pidfd_getfd(&pidfd, listener, PidfdGetfdFlags::empty())?;
    (&*link).write_all(&[0])?;
    Ok(listener)
}

/// The command that starts it.
pub(super) fn prepare(words: &[OsString], own_group: bool, rights: Rights) -> io::Result<Command> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program was named"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if own_group {
        command.process_group(0);
    }
    let parent = std::process::id();
    let before = move || tie(parent).and_then(|()| bound(rights));
    // SAFETY: it makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(before) };
    Ok(command)
}

/// Dies with the parent, and hears the signals that the parent has blocked for itself: a mask is inherited, also over exec.
fn tie(parent: u32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if std::os::unix::process::parent_id() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

fn bound(rights: Rights) -> io::Result<()> {
    let gone = match rights {
        Rights::Same => return Ok(()),
        Rights::Root => CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_MODULE,
        Rights::None => CapabilitySet::all(),
    };
    for capability in gone.iter() {
        match remove_capability_from_bounding_set(capability) {
            // A kernel may not know the newest of them.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Says why it does not start, as `hms` would; the exit code a shell would give.
pub(super) fn complain(words: &[OsString], error: &io::Error) -> u8 {
    let program = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    say(
        1103,
        &format!("cannot start {program}"),
        &error.to_string(),
        "check the command, and that its folder is on PATH",
    );
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// An error with its cause and its remedy, on stderr, which is the application's.
pub(super) fn say(code: u16, what: &str, why: &str, fix: &str) {
    let text = format!("error[HMS-{code}]: {what}\n  why: {why}\n  fix: {fix}\n");
    // Nobody is left to tell when the stream is gone.
    let _told = io::stderr().write_all(text.as_bytes()).is_ok();
}
