//! What is measured, and in which unit.

use std::fmt;

use super::bed::{Hop, Role};
use crate::tool::Offer;

/// One line of the result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Its name, as `--only` takes it and the JSON has it.
    pub(crate) name: &'static str,
    /// What it is, for the page.
    pub(crate) about: &'static str,
    /// How it is measured.
    pub(crate) kind: Kind,
}

/// How a case is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Saturation with wrk.
    Requests {
        /// Through what.
        hop: Hop,
        /// For which body.
        path: &'static str,
        /// Whether latency at a fixed rate is measured as well.
        latency: bool,
    },
    /// Saturation with h2load.
    Http2 {
        /// Through what; gRPC calls if that is for gRPC.
        hop: Hop,
    },
    /// Bytes through the pair.
    Bytes,
    /// New connections, one request each.
    Handshakes(Offer),
    /// Connections that do nothing.
    Idle {
        /// At what.
        role: Role,
        /// How many.
        count: u32,
    },
    /// A new process.
    Start,
}

/// A property of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Time on a processor.
    Cpu,
    /// Median of a time.
    P50,
    /// 99th percentile of a time.
    P99,
    /// Memory.
    Rss,
    /// Size of the program's file.
    Size,
}

impl Metric {
    /// Whether it is a time that requests take.
    pub(crate) fn is_latency(self) -> bool {
        matches!(self, Self::P50 | Self::P99)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Rss => "rss",
            Self::Size => "size",
        })
    }
}

impl Case {
    /// The unit of one of its figures.
    pub(crate) fn unit(&self, metric: Metric) -> &'static str {
        match (metric, self.kind) {
            (Metric::Cpu, Kind::Bytes) => "ns/byte",
            (Metric::Cpu, Kind::Handshakes(_)) => "us/handshake",
            (Metric::Cpu, _) => "us/request",
            (Metric::P50 | Metric::P99, Kind::Start) => "ms",
            (Metric::P50 | Metric::P99, _) => "us added",
            (Metric::Rss, Kind::Idle { .. }) => "KiB/connection",
            (Metric::Rss, _) => "KiB",
            (Metric::Size, _) => "bytes",
        }
    }

    /// Whether the least of all rounds stands for them, or the median: noise only ever adds to a time, but memory varies both ways.
    pub(crate) fn takes_least(&self, metric: Metric) -> bool {
        metric == Metric::Cpu || self.subtracts(metric)
    }

    /// Whether a figure is what a proxy adds to the same without one.
    pub(crate) fn subtracts(&self, metric: Metric) -> bool {
        metric.is_latency() && matches!(self.kind, Kind::Requests { .. })
    }

    /// The way it takes, if it is one through a running bed.
    pub(crate) fn hop(&self) -> Option<Hop> {
        match self.kind {
            Kind::Requests { hop, .. } | Kind::Http2 { hop } => Some(hop),
            Kind::Bytes => Some(Hop::Opaque),
            Kind::Handshakes(_) | Kind::Idle { .. } | Kind::Start => None,
        }
    }

    /// Whether our access log can make a difference to it.
    pub(crate) fn logs(&self) -> bool {
        matches!(self.kind, Kind::Requests { .. } | Kind::Http2 { .. } | Kind::Handshakes(_))
    }

    /// How often it is measured in a run of so many rounds. Memory for very many connections repeats to the percent, and takes long.
    pub(crate) fn rounds(&self, rounds: u32) -> u32 {
        match self.kind {
            Kind::Idle { count, .. } if count > 1000 => 1,
            _ => rounds,
        }
    }
}

const fn requests(name: &'static str, about: &'static str, hop: Hop, path: &'static str, latency: bool) -> Case {
    Case { name, about, kind: Kind::Requests { hop, path, latency } }
}

const fn idle(name: &'static str, about: &'static str, role: Role, count: u32) -> Case {
    Case { name, about, kind: Kind::Idle { role, count } }
}

/// Every case, in the order in which they are shown.
pub(crate) const CASES: &[Case] = &[
    requests("plain-100b", "one proxy, plain HTTP/1.1 on both sides, 100-byte answers", Hop::Plain, "/", true),
    requests("plain-16k", "the same, 16 KiB", Hop::Plain, "/16k", false),
    requests("plain-1m", "the same, 1 MiB", Hop::Plain, "/1m", false),
    requests("pair-100b", "plain in, mutual TLS between two proxies, plain out; 100 bytes", Hop::Pair, "/", true),
    requests("pair-16k", "the same, 16 KiB", Hop::Pair, "/16k", false),
    requests("pair-1m", "the same, 1 MiB", Hop::Pair, "/1m", false),
    requests(
        "captured-100b",
        "the pair, from a captured program that dials the service itself; 100 bytes",
        Hop::Captured,
        "/",
        true,
    ),
    Case {
        name: "pair-h2",
        about: "the pair for HTTP/2 clients: HTTP/2 up to the second proxy, HTTP/1.1 to the application",
        kind: Kind::Http2 { hop: Hop::PairHttp2 },
    },
    Case {
        name: "pair-grpc",
        about: "the pair for unary gRPC calls of 100 bytes: HTTP/2 all the way",
        kind: Kind::Http2 { hop: Hop::PairGrpc },
    },
    Case { name: "opaque", about: "bytes without HTTP through the pair, TLS between", kind: Kind::Bytes },
    Case {
        name: "handshake",
        about: "the second of the pair: full mutual handshake (X25519, P-256 certificates) and one request",
        kind: Kind::Handshakes(Offer::Classic),
    },
    Case {
        name: "handshake-hybrid",
        about: "the same with a client that prefers X25519 with ML-KEM-768, as our proxies do; who cannot, takes X25519",
        kind: Kind::Handshakes(Offer::Hybrid),
    },
    idle("idle-1k", "1 000 idle connections at a plain proxy", Role::Plain, 1000),
    idle("idle-1k-mtls", "1 000 idle mutual TLS connections at the second of the pair", Role::Inbound, 1000),
    idle("idle-10k", "9 500 idle connections at a plain proxy: ours takes (nofile - 64) / 2", Role::Plain, 9_500),
    idle("idle-10k-mtls", "9 500 idle mutual TLS connections at the second of the pair", Role::Inbound, 9_500),
    Case {
        name: "start",
        about: "one proxy from its start until it has served a request; its memory then; its program",
        kind: Kind::Start,
    },
];
