//! What a connection's frames cost, without any I/O: every frame's head goes in, and at most one [`Breach`] comes out.
//!
//! `h2` bounds what it keeps, not what it is made to do: `PING`, `SETTINGS`, `PRIORITY`, `WINDOW_UPDATE` and tiny `DATA` cost it
//! time and no memory, so it takes them for ever (reliability §0.3). Here all frames that carry no work draw on one allowance,
//! and what a normal peer sends because it works is given back:
//!
//! - a request pays for what its sender sends along with it: priorities, acknowledgements, window updates, a `PING`;
//! - bytes that we send pay for the window updates they cause;
//! - any message that we send pays for one `PING`, because gRPC measures with them (the rule of gRPC's own servers).

use hms_traffic::clock::Moment;

use super::budget::{Budget, PARTS};
use super::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameHead, HEADERS, PING, RST_STREAM};
use super::limits::{Breach, Limits, RESET_WINDOW};

/// `DATA` from this length on is work, in bytes.
const SMALL: u32 = 64;
/// `DATA` shorter than this is not even a message of gRPC, whose prefix has five bytes.
const TINY: u32 = 5;
/// Frames without work that one request pays for.
const REQUEST_PAYS: u32 = 3;
/// What a request that we refuse costs: what it paid, and one. Twice as many streams as are allowed, all refused at once, still
/// fit into the allowance: a client may not have seen our settings yet.
const REFUSED_COSTS: u32 = REQUEST_PAYS + 1;
/// Bytes sent that pay for one frame without work. The busiest clients update two windows for every 4 KiB they read.
const BYTES_PAY: u32 = 1024;
/// Most `PING`s that may be paid for in advance.
const PINGS_PAID: u32 = 1000;

/// `REFUSED_STREAM`.
const REFUSED_STREAM: u32 = 0x7;
/// `PROTOCOL_ERROR`, `FLOW_CONTROL_ERROR`, `STREAM_CLOSED`, `FRAME_SIZE_ERROR`, `ENHANCE_YOUR_CALM`: we reset, but they made us.
const THEIR_FAULT: [u32; 5] = [0x1, 0x3, 0x5, 0x6, 0xb];

/// The state of one connection.
#[derive(Debug)]
pub struct Meter {
    limits: Limits,
    idle_frames: Budget,
    resets: Budget,
    window: Window,
    block: Option<Block>,
    pings_paid: u32,
}

/// Streams and resets of the last [`RESET_WINDOW`], at most.
#[derive(Debug)]
struct Window {
    since: Moment,
    streams: u32,
    resets: u32,
}

/// A header block of which the last byte has not come.
#[derive(Debug, Clone, Copy)]
struct Block {
    since: Moment,
    bytes: u32,
    continuations: u32,
    /// Its last frame has begun.
    last: bool,
}

impl Meter {
    /// A new connection.
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            idle_frames: Budget::new(limits.idle_frames),
            resets: Budget::new(limits.resets),
            window: Window { since: Moment::ZERO, streams: 0, resets: 0 },
            block: None,
            pings_paid: 0,
        }
    }

    /// The other end sent a frame; its payload need not be here yet.
    pub fn received(&mut self, frame: &FrameHead, now: Moment) -> Result<(), Breach> {
        match frame.kind {
            HEADERS => {
                self.window_of(now).streams += 1;
                self.idle_frames.give_back(REQUEST_PAYS * PARTS, now);
                self.block = Some(Block { since: now, bytes: 0, continuations: 0, last: false });
                self.header_block(frame)
            }
            CONTINUATION => {
                let Some(block) = &mut self.block else { return self.idle(PARTS, now) };
                block.continuations += 1;
                if frame.length == 0 {
                    return Err(Breach::HeaderBlock);
                }
                self.header_block(frame)
            }
            DATA => self.data(frame, now),
            PING if self.pings_paid > 0 => {
                self.pings_paid -= 1;
                Ok(())
            }
            RST_STREAM => self.reset(now),
            _ => self.idle(PARTS, now),
        }
    }

    /// We sent a frame.
    pub fn sent(&mut self, frame: &FrameHead, now: Moment) -> Result<(), Breach> {
        match frame.kind {
            DATA | HEADERS => {
                self.pings_paid = (self.pings_paid + 1).min(PINGS_PAID);
                if frame.kind == DATA {
                    self.idle_frames.give_back(frame.length.saturating_mul(PARTS) / BYTES_PAY, now);
                }
                Ok(())
            }
            RST_STREAM => match frame.code {
                Some(code) if THEIR_FAULT.contains(&code) => self.reset(now),
                Some(REFUSED_STREAM) => self.idle(REFUSED_COSTS * PARTS, now),
                // Our own reasons: an upstream that failed, a body that nobody reads.
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// All bytes that have come were told; `is_within_a_frame` says whether the last frame is still arriving. Returns until when
    /// the header block that is open, if one is, must be complete.
    pub fn block_deadline(&mut self, is_within_a_frame: bool) -> Option<Moment> {
        if !is_within_a_frame {
            self.block.take_if(|block| block.last);
        }
        self.block.as_ref().map(|block| block.since.plus(self.limits.block_deadline))
    }

    fn header_block(&mut self, frame: &FrameHead) -> Result<(), Breach> {
        let Some(block) = &mut self.block else { return Ok(()) };
        block.bytes = block.bytes.saturating_add(frame.length);
        block.last = frame.has(END_HEADERS);
        let fits = block.bytes <= self.limits.block && block.continuations <= self.limits.continuations;
        if fits { Ok(()) } else { Err(Breach::HeaderBlock) }
    }

    fn data(&mut self, frame: &FrameHead, now: Moment) -> Result<(), Breach> {
        match frame.length {
            // How most requests with a body end.
            0 if frame.has(END_STREAM) => Ok(()),
            0..TINY => self.idle(PARTS, now),
            TINY..SMALL => self.idle(1, now),
            _ => {
                self.idle_frames.give_back(PARTS, now);
                Ok(())
            }
        }
    }

    fn idle(&mut self, parts: u32, now: Moment) -> Result<(), Breach> {
        if self.idle_frames.spend(parts, now) { Ok(()) } else { Err(Breach::IdleFrames) }
    }

    fn reset(&mut self, now: Moment) -> Result<(), Breach> {
        self.idle(PARTS, now)?;
        let floor = self.limits.reset_floor;
        let window = self.window_of(now);
        window.resets += 1;
        let mostly = floor.is_some_and(|floor| window.resets >= floor && window.resets > window.streams / 2);
        if self.resets.spend(PARTS, now) && !mostly { Ok(()) } else { Err(Breach::Resets) }
    }

    fn window_of(&mut self, now: Moment) -> &mut Window {
        if now.saturating_since(self.window.since) >= RESET_WINDOW {
            self.window = Window { since: now, streams: 0, resets: 0 };
        }
        &mut self.window
    }
}

#[cfg(test)]
mod tests;
