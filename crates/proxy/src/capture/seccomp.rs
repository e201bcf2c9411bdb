//! Seccomp user notification (`seccomp_unotify(2)`): the kernel asks the parent what becomes of some system calls of the application.
#![expect(unsafe_code, reason = "neither std nor a crate in use has these calls")]

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use libc::{c_long, c_uint, c_ulong, seccomp_data, seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog};

/// What may be asked about.
const ASKED: [c_long; 3] = [libc::SYS_connect, libc::SYS_sendmsg, libc::SYS_sendmmsg];
/// The only calling convention that is taken; programs of another are refused instead of being let through.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;
/// From here on, x86-64 numbers are those of x32.
const FOREIGN: u32 = 0x4000_0000;

/// One question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    id: u64,
    /// The thread that asks.
    pub(super) thread: i32,
    /// The number of the call.
    pub(super) call: c_long,
    /// Its arguments.
    pub(super) arguments: [u64; 6],
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The kernel carries the call out.
    Continue,
    /// The call was carried out for it, with this result.
    Done(i64),
    /// The call fails.
    Failed(i32),
}

impl From<io::Error> for Answer {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Installs the filter for this thread and all it will start. To be called between fork and exec: it allocates nothing.
pub(super) fn install() -> io::Result<RawFd> {
    let program = filter();
    let program =
        sock_fprog { len: u16::try_from(program.len()).unwrap_or_default(), filter: program.as_ptr().cast_mut() };
    // Whoever has no rights may only give up those it could get.
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the kernel reads the program, which lives until the call returns.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    RawFd::try_from(listener).ok().filter(|listener| *listener >= 0).ok_or_else(io::Error::last_os_error)
}

/// ```text
/// another architecture, x32, io_uring_setup → ENOSYS      io_uring would make connections that nobody is asked about
/// connect, sendmsg, sendmmsg                → ask
/// sendto with an address                    → ask
/// anything else                             → allow
/// ```
fn filter() -> [sock_filter; 16] {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    /// Where the three ends stand.
    const ALLOW: u8 = 13;
    const ASK: u8 = 14;
    const REFUSE: u8 = 15;
    let line = |code: u16, k: u32, jt: u8, jf: u8| sock_filter { code, jt, jf, k };
    let number = |call: c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let at = |offset: usize| u32::try_from(offset).unwrap_or_default();
    let jump = |own: u8, target: u8| target - own - 1;
    let address = offset_of!(seccomp_data, args) + 4 * size_of::<u64>();
    let [connect, sendmsg, sendmmsg] = ASKED.map(number);
    [
        line(LOAD, at(offset_of!(seccomp_data, arch)), 0, 0),
        line(EQUAL, ARCHITECTURE, 0, jump(1, REFUSE)),
        line(LOAD, at(offset_of!(seccomp_data, nr)), 0, 0),
        line(AT_LEAST, FOREIGN, jump(3, REFUSE), 0),
        line(EQUAL, number(libc::SYS_io_uring_setup), jump(4, REFUSE), 0),
        line(EQUAL, connect, jump(5, ASK), 0),
        line(EQUAL, sendmsg, jump(6, ASK), 0),
        line(EQUAL, sendmmsg, jump(7, ASK), 0),
        line(EQUAL, number(libc::SYS_sendto), 0, jump(8, ALLOW)),
        line(LOAD, at(address), 0, 0),
        line(EQUAL, 0, 0, jump(10, ASK)),
        line(LOAD, at(address + 4), 0, 0),
        line(EQUAL, 0, jump(12, ALLOW), jump(12, ASK)),
        line(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        line(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        line(RETURN, libc::SECCOMP_RET_ERRNO | number(c_long::from(libc::ENOSYS)), 0, 0),
    ]
}

/// Where questions arrive.
#[derive(Debug)]
pub(super) struct Questions(OwnedFd);

impl Questions {
    /// Those that arrive at this descriptor.
    pub(super) fn new(listener: OwnedFd) -> Self {
        Self(listener)
    }

    /// Waits for the next. Several threads may wait.
    pub(super) fn next(&self) -> io::Result<Question> {
        loop {
            // SAFETY: all zero is a value of this struct, and the one the kernel wants.
            let mut asked: seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the kernel writes one such struct.
            let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
            if result == 0 {
                return Ok(Question {
                    id: asked.id,
                    thread: i32::try_from(asked.pid).unwrap_or_default(),
                    call: c_long::from(asked.data.nr),
                    arguments: asked.data.args,
                });
            }
            let error = io::Error::last_os_error();
            // ENOENT: who asked was killed before we could look.
            if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) {
                return Err(error);
            }
        }
    }

    /// Whether who asked still waits. What was read of a process before counts only if it does: its number may be another's.
    pub(super) fn is_open(&self, question: &Question) -> bool {
        // SAFETY: the kernel reads one number.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const question.id) == 0 }
    }

    /// Answers; who asked may be gone.
    pub(super) fn answer(&self, question: &Question, answer: Answer) {
        let (val, error, flags) = match answer {
            Answer::Continue => (0, 0, u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or_default()),
            Answer::Done(value) => (value, 0, 0),
            Answer::Failed(code) => (0, -code, 0),
        };
        let mut response = seccomp_notif_resp { id: question.id, val, error, flags };
        // SAFETY: the kernel reads one such struct.
        let _gone = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) != 0 };
    }
}

/// Copies from another process's memory; shorter if the rest cannot be read.
pub(super) fn read_memory(process: i32, address: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; length];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let remote = libc::iovec { iov_base: remote(address), iov_len: length };
    // SAFETY: the kernel writes at most `length` bytes to a buffer of that length; the other address is checked by it.
    let read = unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
    bytes.truncate(usize::try_from(read).map_err(|_negative| io::Error::last_os_error())?);
    Ok(bytes)
}

/// Copies into another process's memory.
pub(super) fn write_memory(process: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: remote(address), iov_len: bytes.len() };
    // SAFETY: the kernel reads `bytes` alone; the other address is checked by it.
    let written = unsafe { libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0) };
    if usize::try_from(written) == Ok(bytes.len()) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn remote(address: u64) -> *mut libc::c_void {
    std::ptr::without_provenance_mut(usize::try_from(address).unwrap_or_default())
}

/// A descriptor of the process, or where the kernel has such of the thread, that asks.
pub(super) fn thread_pidfd(thread: i32) -> io::Result<OwnedFd> {
    /// `PIDFD_THREAD`, since Linux 6.9.
    const THREAD: c_uint = 0o200;
    let open = |pid: i32, flags: c_uint| {
        // SAFETY: two numbers go in, a descriptor that nobody else has comes out.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, c_long::from(pid), c_ulong::from(flags)) };
        let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: it was just opened.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    open(thread, 0)
        .or_else(|_no_leader: io::Error| open(thread, THREAD))
        .or_else(|_older: io::Error| open(leader(thread)?, 0))
}

/// The process of a thread.
fn leader(thread: i32) -> io::Result<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|number| number.trim().parse().ok()).ok_or_else(|| io::ErrorKind::NotFound.into())
}
