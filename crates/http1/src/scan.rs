//! Finding the end of a head.

use crate::{Limits, Reject, head::is_tchar};

/// What the request line may have beside its target: a method of 32 bytes, two spaces, the version, and some to spare.
const BESIDE_TARGET: usize = 64;

/// Finds the end of a head that comes in pieces, looking at each byte once.
///
/// What is certainly wrong is noticed with the byte that makes it so, not only when the head is complete; the result does not
/// depend on how the bytes were cut. One instance serves one head after the other.
#[derive(Debug, Default, Clone)]
pub struct Scanner {
    /// Everything before is settled.
    at: usize,
    /// Where the line of `at` starts.
    line: usize,
    /// Lines that are complete.
    lines: usize,
    /// An empty line came first.
    led: bool,
}

impl Scanner {
    /// For the fields after a body, which have no first line.
    pub(crate) fn trailers() -> Self {
        Self { lines: 1, ..Self::default() }
    }

    /// The length of the head with its empty line, once it is there. `bytes` is everything since the head's first byte, each time
    /// from its start; what follows the head does not matter.
    ///
    /// One empty line before the head is tolerated (RFC 9112 §2.2) and counts.
    pub fn find_end(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        loop {
            self.check_start(bytes)?;
            let rest = bytes.get(self.at..).unwrap_or_default();
            let found = memchr::memchr3(b'\r', b'\n', 0, rest);
            let stop = found.map_or(bytes.len(), |offset| self.at + offset);
            self.check_limits(stop, found.is_some(), limits)?;
            self.at = stop;
            match bytes.get(stop) {
                None => return Ok(None),
                Some(b'\n') => return Err(Reject::BareLf),
                Some(0) => return Err(Reject::Nul),
                Some(_) => {}
            }
            match bytes.get(stop + 1) {
                None => return Ok(None),
                Some(_) if stop + 1 >= limits.head => return Err(Reject::HeadTooLarge),
                Some(b'\n') => {}
                Some(_) => return Err(Reject::BareCr),
            }
            let empty = stop == self.line;
            self.at = stop + 2;
            self.line = self.at;
            match (empty, self.lines) {
                (true, 0) if self.led => return Err(Reject::EmptyLines),
                (true, 0) => self.led = true,
                (true, _) => {
                    let end = self.at;
                    *self = Self::default();
                    return Ok(Some(end));
                }
                (false, lines) if lines > limits.fields => return Err(Reject::TooManyFields),
                (false, _) => self.lines += 1,
            }
        }
    }

    /// A line's first byte already tells some mistakes; that of the first line, also that this is no HTTP at all.
    fn check_start(&self, bytes: &[u8]) -> Result<(), Reject> {
        if self.at != self.line {
            return Ok(());
        }
        match (bytes.get(self.line), self.lines) {
            (None | Some(b'\r' | b'\n' | 0), _) => Ok(()),
            (Some(b' ' | b'\t'), 1) => Err(Reject::LeadingSpace),
            (Some(b' ' | b'\t'), 2..) => Err(Reject::LineFold),
            (Some(byte), 0) if !is_tchar(*byte) => Err(Reject::Method),
            _ => Ok(()),
        }
    }

    /// Whether a limit is crossed by a byte before `stop`, or by the one at `stop` if there is one.
    fn check_limits(&self, stop: usize, there: bool, limits: &Limits) -> Result<(), Reject> {
        let (longest, too_long) = match self.lines {
            0 => (limits.target.saturating_add(BESIDE_TARGET), Reject::TargetTooLong),
            _ => (limits.field, Reject::FieldTooLarge),
        };
        let line_end = self.line.saturating_add(longest);
        let seen = if there { stop + 1 } else { stop };
        if limits.head <= line_end {
            if seen > limits.head {
                return Err(Reject::HeadTooLarge);
            }
        } else if stop > line_end {
            return Err(too_long);
        } else if seen > limits.head {
            return Err(Reject::HeadTooLarge);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fault, and how many bytes it took to see it.
    fn fault(bytes: &[u8], limits: &Limits) -> Option<(Reject, usize)> {
        let mut scanner = Scanner::default();
        (1..=bytes.len()).find_map(|end| scanner.find_end(&bytes[..end], limits).err().map(|fault| (fault, end)))
    }

    #[test]
    fn a_fault_is_seen_with_the_byte_that_makes_it_one() {
        let limits = Limits { head: 40, target: 4, field: 6, fields: 2 };
        for (bytes, rule, seen) in [
            (&b"\x16\x03"[..], Reject::Method, 1),
            (b"\r\n\r\n", Reject::EmptyLines, 4),
            (b"\r\n G", Reject::Method, 3),
            (b"GET\n/", Reject::BareLf, 4),
            (b"GET\r/", Reject::BareCr, 5),
            (b"GET\0/", Reject::Nul, 4),
            (b"GET /\r\n A", Reject::LeadingSpace, 8),
            (b"GET /\r\nA:\r\n\tB", Reject::LineFold, 12),
            (b"GET /\r\nA: 12\r\n", Reject::Unfinished, 0),
            (b"GET /\r\nA: 1234\r\n", Reject::FieldTooLarge, 14),
            (b"GET /\r\nA:\r\nB:\r\nC:\r\n\r\n", Reject::TooManyFields, 19),
            (b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Reject::HeadTooLarge, 41),
            (b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nA: 1\r\n\r\n", Reject::HeadTooLarge, 41),
        ] {
            let expected = (seen > 0).then_some((rule, seen));
            assert_eq!(fault(bytes, &limits), expected, "{}", bytes.escape_ascii());
        }
        let limits = Limits { head: 1_000, ..limits };
        assert_eq!(fault(&[b'A'; 100], &limits), Some((Reject::TargetTooLong, 4 + BESIDE_TARGET + 1)));
    }

    #[test]
    fn one_scanner_finds_one_head_after_the_other() {
        let bytes = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
        let mut scanner = Scanner::default();
        assert_eq!(scanner.find_end(bytes, &Limits::EDGE), Ok(Some(29)));
        assert_eq!(scanner.find_end(&bytes[29..], &Limits::EDGE), Ok(Some(19)));
    }
}
