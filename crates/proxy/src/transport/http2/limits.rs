//! What one HTTP/2 connection may cost us (reliability §2 B and §6), and what it is told when it costs more.

use std::fmt;
use std::time::Duration;

use hms_traffic::dice::Dice;

/// Bounds of one connection. Strangers get [`Limits::EDGE`], proxies and our own application [`Limits::MESH`]: one connection
/// of theirs carries the requests of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streams that may be open at the same time; more are refused with `REFUSED_STREAM`.
    pub streams: u32,
    /// Bytes of a stream's body that we take without having passed them on.
    pub stream_window: u32,
    /// Bytes of a response that wait for the connection, per stream.
    pub send_buffer: usize,
    /// Largest decoded head: names, values and 32 bytes for each field (RFC 9113 §6.5.2).
    pub head: u32,
    /// Largest field in bytes, name and value.
    pub field: usize,
    /// Longest `:path` in bytes.
    pub target: usize,
    /// Largest encoded header block in bytes, all its frames together.
    pub block: u32,
    /// `CONTINUATION` frames of one header block. None may be empty.
    pub continuations: u32,
    /// Time for a header block, from its first byte to its last.
    pub block_deadline: Duration,
    /// Frames that carry no work.
    pub idle_frames: Rate,
    /// Streams that end by a reset, ours because of a fault of theirs included.
    pub resets: Rate,
    /// Resets within [`RESET_WINDOW`] above which they may not be more than half of all streams; `None` for no such rule.
    pub reset_floor: Option<u32>,
    /// Streams that may be reset before we have looked at them.
    pub pending_resets: usize,
    /// Streams whose faults made us reset them, in a connection's whole life; `None` leaves that to [`Self::resets`].
    pub faulty_streams: Option<usize>,
    /// Streams that we reset and still remember, to ignore what was under way.
    pub remembered_resets: usize,
    /// Memory that small `DATA` frames may waste while they wait, in bytes.
    pub small_data: usize,
    /// How long a connection may be without a stream.
    pub idle: Duration,
    /// How old a connection gets, and by how many per cent that differs, so that connections made together do not end together.
    pub age: (Duration, u8),
    /// Requests that one connection may carry.
    pub requests: Option<u64>,
}

/// So many at once, and so many a second for as long as it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// A second.
    pub per_second: u32,
}

/// Over which time resets and streams are compared.
pub const RESET_WINDOW: Duration = Duration::from_secs(10);

impl Limits {
    /// For callers from outside.
    pub const EDGE: Self = Self {
        streams: 100,
        stream_window: 64 * 1024,
        send_buffer: 64 * 1024,
        head: 32 * 1024,
        field: 16 * 1024,
        target: 8 * 1024,
        block: 32 * 1024,
        continuations: 8,
        block_deadline: Duration::from_secs(10),
        idle_frames: Rate { burst: 1000, per_second: 200 },
        // Who leaves a page cancels everything that is open, but hardly ever with every stream in use.
        resets: Rate { burst: 96, per_second: 100 },
        reset_floor: Some(128),
        pending_resets: 20,
        faulty_streams: Some(1024),
        remembered_resets: 50,
        small_data: 1024 * 1024,
        idle: Duration::from_secs(75),
        age: (Duration::from_hours(1), 10),
        requests: Some(10_000),
    };

    /// For proxies, and for the application beside us.
    pub const MESH: Self = Self {
        streams: 200,
        head: 64 * 1024,
        field: 32 * 1024,
        target: 16 * 1024,
        block: 64 * 1024,
        idle_frames: Rate { burst: 20_000, per_second: 10_000 },
        resets: Rate { burst: 2000, per_second: 2000 },
        // When an application is slow, every one of its callers gives up.
        reset_floor: None,
        pending_resets: 200,
        faulty_streams: None,
        remembered_resets: 200,
        small_data: 4 * 1024 * 1024,
        idle: Duration::from_mins(5),
        // Only so that connections spread again after endpoints have come and gone.
        age: (Duration::from_hours(4), 25),
        requests: None,
        ..Self::EDGE
    };

    /// The window of the connection: every stream's, so that streams which are not read cannot stop the others.
    pub const fn connection_window(&self) -> u32 {
        self.streams.saturating_mul(self.stream_window)
    }

    /// How old one connection gets.
    pub fn age(&self, dice: &mut Dice) -> Duration {
        dice.spread(self.age.0, self.age.1)
    }
}

/// Which limit a connection went over. The answer is always `GOAWAY` with `ENHANCE_YOUR_CALM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Breach {
    /// Frames that carry no work: CVE-2019-9511 to 9518.
    IdleFrames,
    /// Resets: CVE-2023-44487, CVE-2025-8671.
    Resets,
    /// A header block too large, in too many pieces, or with an empty one: VU#421644.
    HeaderBlock,
    /// A header block that was not complete in time.
    HeaderDeadline,
    /// A limit that `h2` itself keeps: streams reset before they were looked at, heads many times too large, small `DATA`.
    Library,
}

impl Breach {
    /// Its label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IdleFrames => "idle_frames",
            Self::Resets => "resets",
            Self::HeaderBlock => "header_block",
            Self::HeaderDeadline => "header_deadline",
            Self::Library => "library",
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IdleFrames => "too many frames without work in them",
            Self::Resets => "too many streams were reset",
            Self::HeaderBlock => "a header block too large or in too many pieces",
            Self::HeaderDeadline => "a header block that was not complete in time",
            Self::Library => "too many resets, too large a head or too many small pieces at once",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_are_not_read_leave_room_for_the_others() {
        for limits in [Limits::EDGE, Limits::MESH] {
            assert!(limits.connection_window() >= limits.streams * limits.stream_window);
            assert!(limits.connection_window() <= 16 << 20, "one connection stays far below 64 MiB");
        }
    }

    #[test]
    fn connections_made_together_end_apart() {
        let mut dice = Dice::seeded(1);
        let ages: Vec<Duration> = (0..100).map(|_| Limits::EDGE.age(&mut dice)).collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*least >= Duration::from_mins(54) && *most <= Duration::from_mins(66), "{least:?} {most:?}");
        assert!(*most > *least + Duration::from_mins(6));
    }
}
