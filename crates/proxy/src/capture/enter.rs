//! A program of a person beside the captured application: in its namespaces, with the same view of the world (`hms exec`).
#![expect(unsafe_code, reason = "fork(2) has no safe form, and neither has entering namespaces")]

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, fork};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::application::{self, Rights};
use super::flock;

/// `hms-proxy __enter PID CMD…`: runs the program where process PID lives; its exit code.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let Some((pid, command)) = arguments.split_first() else { return ExitCode::from(2) };
    let pid = pid.to_str().and_then(|pid| pid.parse().ok()).unwrap_or_default();
    let rights = match enter(pid) {
        Ok(Some(rights)) => rights,
        // Our child speaks for us.
        Ok(None) => return wait(),
        Err(error) => {
            application::say(
                1206,
                "cannot enter the application's namespaces",
                &error.to_string(),
                "hms status, and see that the service runs",
            );
            return ExitCode::FAILURE;
        }
    };
    let child = application::prepare(command, false, rights).and_then(|mut command| command.status());
    match child {
        Ok(status) => flock::exit_code(status).into(),
        Err(error) => application::complain(command, &error).into(),
    }
}

/// The rights of a program, in the process inside, whose children are in the PID namespace as well; `None` in the one outside.
fn enter(pid: i32) -> io::Result<Option<Rights>> {
    // Keys of the terminal are the program's.
    [Signal::SIGINT, Signal::SIGQUIT].into_iter().collect::<SigSet>().thread_block()?;
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let folder = std::env::current_dir();
    let own_users = std::fs::read_link("/proc/self/ns/user")?
        != std::fs::read_link(format!("/proc/{}/ns/user", pid.as_raw_nonzero()))?;
    let mut kinds = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::NETWORK | ThreadNameSpaceType::PROCESS_ID;
    if own_users {
        kinds |= ThreadNameSpaceType::USER;
    }
    move_into_thread_name_spaces(pidfd.as_fd(), kinds)?;
    // The other mount table's root is where we are now; we were somewhere.
    let _stays_at_the_root = folder.and_then(std::env::set_current_dir).is_err();
    // SAFETY: this process has one thread, so the child may do whatever we may.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(None),
        ForkResult::Child => {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(Some(if own_users { Rights::None } else { Rights::Root }))
        }
    }
}

/// Waits for the process inside.
fn wait() -> ExitCode {
    match nix::sys::wait::waitpid(None, None) {
        Ok(nix::sys::wait::WaitStatus::Exited(_, code)) => u8::try_from(code & 0xff).unwrap_or(1).into(),
        Ok(nix::sys::wait::WaitStatus::Signaled(_, signal, _)) => u8::try_from(128 + signal as i32).unwrap_or(1).into(),
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}
