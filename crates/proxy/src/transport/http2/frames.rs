//! The heads of the frames in a flow of bytes, whichever way it is cut into reads.

/// Length of a frame's head (RFC 9113 §4.1).
const HEAD: usize = 9;
/// Length of what a client sends before its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// `DATA`.
pub const DATA: u8 = 0x0;
/// `HEADERS`.
pub const HEADERS: u8 = 0x1;
/// `RST_STREAM`.
pub const RST_STREAM: u8 = 0x3;
/// `PING`.
pub const PING: u8 = 0x6;
/// `CONTINUATION`.
pub const CONTINUATION: u8 = 0x9;

/// `END_STREAM` of `DATA` and `HEADERS`.
pub const END_STREAM: u8 = 0x1;
/// `END_HEADERS` of `HEADERS` and `CONTINUATION`.
pub const END_HEADERS: u8 = 0x4;

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes after the head.
    pub length: u32,
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The error code of a well-formed `RST_STREAM`.
    pub code: Option<u32>,
}

impl FrameHead {
    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Finds the heads; of everything else only the length is looked at.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes to pass over: the preface, then what belongs to the frame whose head was told.
    skip: usize,
    /// A head that is not complete; an `RST_STREAM` counts its four bytes of code as part of it.
    held: [u8; HEAD + 4],
    have: usize,
}

impl Scanner {
    /// For what a client sends.
    pub fn of_client() -> Self {
        Self { skip: PREFACE, ..Self::default() }
    }

    /// For what a server sends.
    pub fn of_server() -> Self {
        Self::default()
    }

    /// Whether the last frame told is not complete.
    pub fn is_within_a_frame(&self) -> bool {
        self.skip > 0
    }

    /// Takes bytes up to the end of the next head and returns it with the number of bytes taken; `None` means all were taken.
    pub fn next(&mut self, bytes: &[u8]) -> Option<(usize, FrameHead)> {
        let mut rest = bytes;
        loop {
            let passed = self.skip.min(rest.len());
            self.skip -= passed;
            rest = rest.get(passed..).unwrap_or_default();
            // The common case: a head that lies in one piece is not copied byte by byte.
            let wanted = self.wanted() - self.have;
            let (piece, after) = rest.split_at_checked(wanted).unwrap_or((rest, &[]));
            if piece.is_empty() {
                return None;
            }
            let place = self.held.get_mut(self.have..self.have + piece.len())?;
            place.copy_from_slice(piece);
            self.have += piece.len();
            rest = after;
            if self.have == self.wanted() {
                let head = self.complete();
                return Some((bytes.len() - rest.len(), head));
            }
        }
    }

    fn wanted(&self) -> usize {
        let [_, _, _, kind, ..] = self.held;
        if self.have >= HEAD && kind == RST_STREAM && self.length() == 4 { HEAD + 4 } else { HEAD }
    }

    fn length(&self) -> u32 {
        let [high, middle, low, ..] = self.held;
        u32::from_be_bytes([0, high, middle, low])
    }

    fn complete(&mut self) -> FrameHead {
        let [_, _, _, kind, flags, _, _, _, _, a, b, c, d] = self.held;
        let code = (self.have > HEAD).then_some(u32::from_be_bytes([a, b, c, d]));
        let length = self.length();
        // A frame's length has 24 bits.
        let told = self.have - HEAD;
        self.skip = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(told);
        self.have = 0;
        FrameHead { length, kind, flags, code }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    fn heads(scanner: &mut Scanner, pieces: &[&[u8]]) -> Vec<FrameHead> {
        let mut found = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while let Some((taken, head)) = scanner.next(rest) {
                assert!(taken > 0);
                found.push(head);
                rest = &rest[taken..];
            }
        }
        found
    }

    fn sample() -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(0x4, 0, &[0; 12]));
        bytes.extend(frame(HEADERS, END_HEADERS, &[9; 300]));
        bytes.extend(frame(RST_STREAM, 0, &8_u32.to_be_bytes()));
        bytes.extend(frame(0x4, 1, &[]));
        bytes.extend(frame(RST_STREAM, 0, &[1, 2]));
        bytes.extend(frame(DATA, END_STREAM, &[7; 5]));
        bytes
    }

    #[test]
    fn every_head_is_found_and_a_reset_tells_its_code() {
        let found = heads(&mut Scanner::of_client(), &[&sample()]);
        let seen: Vec<_> = found.iter().map(|head| (head.kind, head.length, head.code)).collect();
        let wanted = [
            (4, 12, None),
            (HEADERS, 300, None),
            (RST_STREAM, 4, Some(8)),
            (4, 0, None),
            (RST_STREAM, 2, None),
            (DATA, 5, None),
        ];
        assert_eq!(seen, wanted);
        assert!(found[5].has(END_STREAM));
    }

    #[test]
    fn a_frame_that_is_not_complete_is_known_to_be_so() {
        let mut scanner = Scanner::of_server();
        let bytes = frame(HEADERS, END_HEADERS, &[1, 2, 3]);
        assert_eq!(heads(&mut scanner, &[&bytes[..11]]).len(), 1);
        assert!(scanner.is_within_a_frame());
        assert_eq!(heads(&mut scanner, &[&bytes[11..]]).len(), 0);
        assert!(!scanner.is_within_a_frame());
    }

    proptest! {
        #[test]
        fn any_cut_finds_the_same_heads(cuts in prop::collection::vec(1_usize..40, 0..60)) {
            let bytes = sample();
            let whole = heads(&mut Scanner::of_client(), &[&bytes]);
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            prop_assert_eq!(heads(&mut Scanner::of_client(), &pieces), whole);
        }

        #[test]
        fn no_bytes_make_it_panic_or_stand_still(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let found = heads(&mut Scanner::of_server(), &[&bytes]);
            prop_assert!(found.len() <= bytes.len() / HEAD);
        }
    }
}
