//! Reading arguments: positional ones first, then flags.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

/// Positional arguments in their order.
pub(crate) struct Positional {
    usage: &'static str,
    left: std::vec::IntoIter<OsString>,
}

impl Positional {
    /// Of a tool that is used so.
    pub(crate) fn new(arguments: Vec<OsString>, usage: &'static str) -> Self {
        Self { usage, left: arguments.into_iter() }
    }

    /// The next one.
    pub(crate) fn take<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        let text = self.left.next().and_then(|word| word.into_string().ok());
        text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("{what} is missing or wrong\n{}", self.usage))
    }

    /// An address.
    pub(crate) fn address(&mut self) -> Result<SocketAddr, String> {
        self.take("IP:PORT")
    }

    /// Seconds, with a fraction.
    pub(crate) fn seconds(&mut self) -> Result<Duration, String> {
        Duration::try_from_secs_f64(self.take("SECONDS")?).map_err(|error| format!("SECONDS: {error}"))
    }

    /// The next one, if there is one.
    pub(crate) fn optional(&mut self) -> Option<OsString> {
        self.left.next()
    }
}
