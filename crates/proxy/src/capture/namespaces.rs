//! From one process to two: one stays, the other is the first of its own PID namespace, and has a network, a mount table and (unless
//! root needs none) a user namespace of its own.
#![expect(unsafe_code, reason = "fork(2) has no safe form")]

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid};

use super::link;

/// Who this process is after [`split`].
#[derive(Debug)]
pub(super) enum Split {
    /// The one that was there before.
    Outside {
        /// To the process inside.
        link: OwnedFd,
        /// The process inside, as it is called out here.
        inside: Pid,
    },
    /// The first process of the new namespaces.
    Inside {
        /// To the process outside.
        link: OwnedFd,
        /// Whether it has a user namespace of its own.
        own_users: bool,
    },
    /// The one between the two, whose only duty left is to end.
    Between,
}

/// Splits this process, which must have a single thread. A refusal of the kernel comes with what was tried.
///
/// A process cannot move itself into a PID namespace, only the children it has afterwards. So there is one process between the two;
/// it ends at once, and its child becomes ours, because we are the reaper (`PR_SET_CHILD_SUBREAPER`).
pub(super) fn split() -> io::Result<Split> {
    let (outer, inner) = link::pair()?;
    // SAFETY: this process has one thread, so the child may do whatever we may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(inner);
            let said = link::receive(&outer)?.unwrap_or_default();
            waitpid(child, None)?;
            let inside = match said.words() {
                ("pid", pid) => pid.parse().map(Pid::from_raw).map_err(io::Error::other)?,
                ("failed", why) => return Err(io::Error::other(why.to_owned())),
                _ => return Err(io::Error::other("the process between ended")),
            };
            // Only now: the death that would end it by mistake is over.
            link::send(&outer, "go", &[])?;
            Ok(Split::Outside { link: outer, inside })
        }
        ForkResult::Child => {
            drop(outer);
            Ok(between(inner))
        }
    }
}

fn between(link: OwnedFd) -> Split {
    let own_users = match isolate() {
        Ok(own_users) => own_users,
        Err(why) => {
            tell(&link, &format!("failed {why}"));
            return Split::Between;
        }
    };
    // SAFETY: still one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => {
            tell(&link, &format!("pid {child}"));
            Split::Between
        }
        Ok(ForkResult::Child) => match wait_to_go(&link) {
            Some(()) => Split::Inside { link, own_users },
            None => Split::Between,
        },
        Err(error) => {
            tell(&link, &format!("failed fork: {}", error.desc()));
            Split::Between
        }
    }
}

/// Waits until our parent is the process outside, and ties our life to its. `None` if it is gone.
fn wait_to_go(link: &OwnedFd) -> Option<()> {
    link::receive(link).ok().flatten()?;
    prctl::set_pdeathsig(Signal::SIGKILL).ok()
}

/// Says something to the process outside; if that is gone, nobody needs to know.
fn tell(link: &OwnedFd, text: &str) {
    let _gone = link::send(link, text, &[]).is_err();
}

/// Leaves the present namespaces. Answers whether a user namespace was needed for it.
fn isolate() -> Result<bool, String> {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    let (user, group) = (geteuid(), getegid());
    if user.is_root() && unshare(flags).is_ok() {
        return Ok(false);
    }
    unshare(flags | CloneFlags::CLONE_NEWUSER).map_err(|error| match error {
        Errno::ENOSPC => "unshare: no more user namespaces allowed (user.max_user_namespaces)".to_owned(),
        other => format!("unshare: {}", other.desc()),
    })?;
    // The same numbers inside: the first process has every capability over its namespaces anyway, until it executes a program.
    let write = |name: &str, text: String| {
        std::fs::write(format!("/proc/self/{name}"), text).map_err(|error| format!("{name}: {error}"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{user} {user} 1"))?;
    write("gid_map", format!("{group} {group} 1"))?;
    Ok(true)
}
