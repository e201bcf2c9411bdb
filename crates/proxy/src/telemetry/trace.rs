//! Trace context as W3C Trace Context has it, and the mesh's own `x-trace-id` (ruling R13).

use hms_model::message::Fields;
use hms_traffic::deadline;
use hms_traffic::dice::Dice;
use http::HeaderName;

use super::time::Text;

/// W3C Trace Context §3.2.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The trace id alone, for people.
pub const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// Where a request stands in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    sampled: bool,
}

impl TraceContext {
    /// Continues the caller's trace with a span of our own, or begins one. Broken or all-zero values are as none at all.
    pub fn continue_from(fields: &Fields, sample_per_million: u32, dice: &mut Dice) -> Self {
        let span = random(dice).max(1);
        if let Some((trace, sampled)) = fields.text(&TRACEPARENT).and_then(parse) {
            return Self { trace, span, sampled };
        }
        // An application that forwards only the mesh's own field continues the trace as well (S4-22).
        let named = fields.text(&TRACE_ID).and_then(parse_trace_id);
        let trace = named.unwrap_or_else(|| (u128::from(random(dice)) << 64) | u128::from(random(dice).max(1)));
        let sampled = dice.below(1_000_000) < usize::try_from(sample_per_million).unwrap_or(usize::MAX);
        Self { trace, span, sampled }
    }

    /// What stands for the trace among the deadlines.
    pub fn key(&self) -> u64 {
        deadline::key(self.trace)
    }

    /// The 32 hex digits of the trace.
    pub fn trace_id(&self) -> TraceId {
        TraceId::from(self.trace)
    }

    /// Whether the trace is kept.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// W3C Trace Context §3.2.
    pub fn traceparent(&self) -> Text<55> {
        let mut bytes = [b'-'; 55];
        for (range, number) in
            [(0..2, 0), (3..35, self.trace), (36..52, self.span.into()), (53..55, self.sampled.into())]
        {
            hex(bytes.get_mut(range).unwrap_or_default(), number);
        }
        Text::new(bytes)
    }
}

/// The trace, as 32 hex digits.
pub type TraceId = Text<32>;

impl From<u128> for TraceId {
    fn from(trace: u128) -> Self {
        let mut bytes = [0; 32];
        hex(&mut bytes, trace);
        Self::new(bytes)
    }
}

/// Fills `digits` with the last hex digits of `number`.
fn hex(digits: &mut [u8], number: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
    for (pair, byte) in digits.rchunks_exact_mut(2).zip(number.to_le_bytes()) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

fn random(dice: &mut Dice) -> u64 {
    let half = |dice: &mut Dice| u64::try_from(dice.below(1 << 32)).unwrap_or_default();
    (half(dice) << 32) | half(dice)
}

/// 32 lower-case hex digits that are not all zero.
fn parse_trace_id(text: &str) -> Option<u128> {
    let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().filter(|trace| *trace != 0)
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; of a later version only this beginning is read (§3.2.2.1).
fn parse(text: &str) -> Option<(u128, bool)> {
    let is_hex = |s: &str, length: usize| {
        (s.len() == length && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(())
    };
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    is_hex(version, 2)
        .and_then(|()| is_hex(trace, 32))
        .and_then(|()| is_hex(span, 16))
        .and_then(|()| is_hex(flags, 2))?;
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|t| *t != 0)?;
    u64::from_str_radix(span, 16).ok().filter(|s| *s != 0)?;
    Some((trace, u8::from_str_radix(flags, 16).ok()? & 1 == 1))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn context(traceparent: &'static str) -> TraceContext {
        let mut fields = Fields::new();
        fields.set(TRACEPARENT, HeaderValue::from_static(traceparent));
        TraceContext::continue_from(&fields, 1_000_000, &mut Dice::seeded(1))
    }

    #[test]
    fn a_callers_trace_goes_on_with_a_new_span() {
        let context = context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(context.trace_id().as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled());
        assert!(!context.traceparent().as_str().contains("00f067aa0ba902b7"));
    }

    #[test]
    fn a_forwarded_trace_id_alone_continues_the_trace() {
        let mut fields = Fields::new();
        fields.set(TRACE_ID, HeaderValue::from_static("4bf92f3577b34da6a3ce929d0e0e4736"));
        let context = TraceContext::continue_from(&fields, 0, &mut Dice::seeded(1));
        assert_eq!(context.trace_id().as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
        fields.set(TRACE_ID, HeaderValue::from_static("7f23ab"));
        let context = TraceContext::continue_from(&fields, 0, &mut Dice::seeded(1));
        assert!(!context.trace_id().as_str().contains("7f23ab"));
    }

    #[test]
    fn broken_contexts_begin_a_new_trace() {
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_ne!(context(bad).trace_id().as_str(), "4bf92f3577b34da6a3ce929d0e0e4736", "{bad}");
        }
        assert_eq!(
            context("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-later").trace_id().as_str(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
    }
}
