//! Why a message is refused.

use std::fmt;

use hms_model::message::Malformed;
use http::StatusCode;

/// A rule that a message breaks. Of several, the one that is seen first.
///
/// The section is the one that the rule rests on. Where the RFC lets a recipient choose, the mesh refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// The head is larger than [`crate::Limits::head`] (RFC 6585 §5).
    HeadTooLarge,
    /// The target is longer than [`crate::Limits::target`] (RFC 9112 §3).
    TargetTooLong,
    /// A field line is longer than [`crate::Limits::field`] (RFC 9110 §5.4).
    FieldTooLarge,
    /// There are more field lines than [`crate::Limits::fields`] (RFC 9110 §5.4).
    TooManyFields,
    /// A line ends in LF without CR (RFC 9112 §2.2).
    BareLf,
    /// A CR without LF (RFC 9112 §2.2).
    BareCr,
    /// A NUL byte (RFC 9110 §5.5).
    Nul,
    /// More than one empty line before a request, or any before a response (RFC 9112 §2.2).
    EmptyLines,
    /// White space between the first line and the first field (RFC 9112 §2.2).
    LeadingSpace,
    /// A field line that goes on in the next one: obs-fold (RFC 9112 §5.2).
    LineFold,
    /// White space between a field's name and its colon (RFC 9112 §5.1).
    SpaceBeforeColon,
    /// A field line without a colon (RFC 9112 §5).
    NoColon,
    /// A field's name is empty or no token (RFC 9110 §5.1).
    FieldName,
    /// A field's value contains a control byte (RFC 9110 §5.5).
    FieldValue,
    /// The bytes are not exactly one head (RFC 9112 §2.1).
    Unfinished,
    /// The method is no token (RFC 9110 §9.1).
    Method,
    /// The method is longer than 32 bytes (RFC 9112 §3).
    MethodTooLong,
    /// A registered method in the wrong case, which some servers take for the right one (RFC 9110 §9.1).
    MethodCase,
    /// `CONNECT` (RFC 9110 §9.3.6).
    Connect,
    /// `TRACE` with a body (RFC 9110 §9.3.8).
    TraceBody,
    /// The request line is not made of three parts with one space between them (RFC 9112 §3).
    RequestLine,
    /// A request line without a version: HTTP/0.9 (RFC 9112 §2.3).
    NoVersion,
    /// The version is not spelt `HTTP/` digit `.` digit (RFC 9112 §2.3).
    VersionSyntax,
    /// A version other than 1.0 and 1.1 (RFC 9110 §2.5).
    Version,
    /// The HTTP/2 preface on a connection that speaks HTTP/1.1 (RFC 9113 §3.4).
    Preface,
    /// A target in none of the forms that the method has (RFC 9112 §3.2).
    TargetForm,
    /// A target that is ambiguous or broken (RFC 9112 §3.2).
    Target(Malformed),
    /// No `Host` (RFC 9112 §3.2).
    NoHost,
    /// More than one `Host` (RFC 9112 §3.2).
    ManyHosts,
    /// A `Host` that is no authority (RFC 9110 §7.2).
    Host(Malformed),
    /// The target names another host than `Host` (RFC 9112 §3.2.2).
    HostMismatch,
    /// `Content-Length` is no decimal number below 2⁶³ (RFC 9110 §8.6).
    Length,
    /// More than one `Content-Length`, or a list in one, be they equal or not (RFC 9112 §6.3).
    ManyLengths,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 §6.1).
    LengthAndCoding,
    /// A transfer coding that does not end in `chunked`, is broken, or applies it twice (RFC 9112 §6.3).
    Coding,
    /// A transfer coding other than `chunked` before `chunked` (RFC 9112 §6.1).
    UnknownCoding,
    /// More than one `Transfer-Encoding` line (RFC 9112 §6.1).
    ManyCodings,
    /// `Transfer-Encoding` with HTTP/1.0 (RFC 9112 §6.1).
    CodingInHttp10,
    /// `Connection` is no list of tokens, or one of more than 32 (RFC 9110 §7.6.1).
    Connection,
    /// `Connection` nominates a field that must reach the other end (RFC 9110 §7.6.1).
    Nominated,
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    Expect,
    /// A WebSocket upgrade that is none: method, body, version or key are wrong (RFC 6455 §4.2.1).
    WebSocket,
    /// The status line is not version, space, three digits (RFC 9112 §4).
    StatusLine,
    /// A status outside 100 to 599 (RFC 9110 §15).
    Status,
    /// 101 to a request that asked for no upgrade (RFC 9110 §15.2.2).
    Unasked,
    /// A 101 whose upgrade, connection or accept value is not the one asked for (RFC 6455 §4.1).
    Handshake,
    /// A body on a response that cannot have one: 1xx or 204 (RFC 9110 §8.6, RFC 9112 §6.1).
    BodyForbidden,
    /// A chunk's size is not 1 to 16 hexadecimal digits below 2⁶³ (RFC 9112 §7.1).
    ChunkSize,
    /// A chunk's extensions are broken, longer than 256 bytes, or than 4 KiB in the body (RFC 9112 §7.1.1).
    ChunkExtension,
    /// A chunk's data is not followed by CR LF (RFC 9112 §7.1).
    ChunkEnd,
    /// Trailers of more than 8 KiB or 32 lines (RFC 9112 §7.1.2).
    TrailersTooLarge,
}

impl Reject {
    /// Every rule there is.
    pub const ALL: &[Self] = &[
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::FieldTooLarge,
        Self::TooManyFields,
        Self::BareLf,
        Self::BareCr,
        Self::Nul,
        Self::EmptyLines,
        Self::LeadingSpace,
        Self::LineFold,
        Self::SpaceBeforeColon,
        Self::NoColon,
        Self::FieldName,
        Self::FieldValue,
        Self::Unfinished,
        Self::Method,
        Self::MethodTooLong,
        Self::MethodCase,
        Self::Connect,
        Self::TraceBody,
        Self::RequestLine,
        Self::NoVersion,
        Self::VersionSyntax,
        Self::Version,
        Self::Preface,
        Self::TargetForm,
        Self::Target(Malformed::Fragment),
        Self::Target(Malformed::Backslash),
        Self::Target(Malformed::RawByte),
        Self::Target(Malformed::BadPercent),
        Self::Target(Malformed::EncodedSeparator),
        Self::Target(Malformed::AboveRoot),
        Self::Target(Malformed::BadAuthority),
        Self::Target(Malformed::UserInfo),
        Self::NoHost,
        Self::ManyHosts,
        Self::Host(Malformed::BadAuthority),
        Self::Host(Malformed::UserInfo),
        Self::HostMismatch,
        Self::Length,
        Self::ManyLengths,
        Self::LengthAndCoding,
        Self::Coding,
        Self::UnknownCoding,
        Self::ManyCodings,
        Self::CodingInHttp10,
        Self::Connection,
        Self::Nominated,
        Self::Expect,
        Self::WebSocket,
        Self::StatusLine,
        Self::Status,
        Self::Unasked,
        Self::Handshake,
        Self::BodyForbidden,
        Self::ChunkSize,
        Self::ChunkExtension,
        Self::ChunkEnd,
        Self::TrailersTooLarge,
    ];

    /// The status that a client is answered with. For a response that broke the rule it has no meaning: that is a 502.
    pub fn status(self) -> StatusCode {
        match self {
            Self::HeadTooLarge | Self::FieldTooLarge | Self::TooManyFields => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::MethodTooLong | Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Version | Self::Preface => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Expect => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The section that the rule rests on, such as `RFC 9112 §6.1`.
    pub fn section(self) -> &'static str {
        match self {
            Self::HeadTooLarge => "RFC 6585 §5",
            Self::TargetTooLong | Self::MethodTooLong | Self::RequestLine => "RFC 9112 §3",
            Self::FieldTooLarge | Self::TooManyFields => "RFC 9110 §5.4",
            Self::BareLf | Self::BareCr | Self::EmptyLines | Self::LeadingSpace => "RFC 9112 §2.2",
            Self::Nul | Self::FieldValue => "RFC 9110 §5.5",
            Self::LineFold => "RFC 9112 §5.2",
            Self::SpaceBeforeColon => "RFC 9112 §5.1",
            Self::NoColon => "RFC 9112 §5",
            Self::FieldName => "RFC 9110 §5.1",
            Self::Unfinished => "RFC 9112 §2.1",
            Self::Method | Self::MethodCase => "RFC 9110 §9.1",
            Self::Connect => "RFC 9110 §9.3.6",
            Self::TraceBody => "RFC 9110 §9.3.8",
            Self::NoVersion | Self::VersionSyntax => "RFC 9112 §2.3",
            Self::Version => "RFC 9110 §2.5",
            Self::Preface => "RFC 9113 §3.4",
            Self::TargetForm | Self::Target(_) | Self::NoHost | Self::ManyHosts => "RFC 9112 §3.2",
            Self::Host(_) => "RFC 9110 §7.2",
            Self::HostMismatch => "RFC 9112 §3.2.2",
            Self::Length | Self::BodyForbidden => "RFC 9110 §8.6",
            Self::ManyLengths | Self::Coding => "RFC 9112 §6.3",
            Self::LengthAndCoding | Self::UnknownCoding | Self::ManyCodings | Self::CodingInHttp10 => "RFC 9112 §6.1",
            Self::Connection | Self::Nominated => "RFC 9110 §7.6.1",
            Self::Expect => "RFC 9110 §10.1.1",
            Self::WebSocket => "RFC 6455 §4.2.1",
            Self::StatusLine => "RFC 9112 §4",
            Self::Status => "RFC 9110 §15",
            Self::Unasked => "RFC 9110 §15.2.2",
            Self::Handshake => "RFC 6455 §4.1",
            Self::ChunkSize | Self::ChunkEnd => "RFC 9112 §7.1",
            Self::ChunkExtension => "RFC 9112 §7.1.1",
            Self::TrailersTooLarge => "RFC 9112 §7.1.2",
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeadTooLarge => "the head is too large",
            Self::TargetTooLong => "the target is too long",
            Self::FieldTooLarge => "a field is too large",
            Self::TooManyFields => "there are too many fields",
            Self::BareLf => "a line ends in LF without CR",
            Self::BareCr => "a CR without LF",
            Self::Nul => "a NUL byte",
            Self::EmptyLines => "empty lines before the message",
            Self::LeadingSpace => "white space before the first field",
            Self::LineFold => "a folded field line",
            Self::SpaceBeforeColon => "white space before a colon",
            Self::NoColon => "a field line without a colon",
            Self::FieldName => "a field name that is no token",
            Self::FieldValue => "a control byte in a field value",
            Self::Unfinished => "not exactly one head",
            Self::Method => "the method is no token",
            Self::MethodTooLong => "the method is too long",
            Self::MethodCase => "a method in the wrong case",
            Self::Connect => "CONNECT is not offered",
            Self::TraceBody => "TRACE has no body",
            Self::RequestLine => "the request line is not three parts with one space between them",
            Self::NoVersion => "the request line names no version",
            Self::VersionSyntax => "the version is malformed",
            Self::Version => "the version is neither 1.0 nor 1.1",
            Self::Preface => "HTTP/2 on a connection that speaks HTTP/1.1",
            Self::TargetForm => "the target has a form that the method does not take",
            Self::Target(malformed) => return malformed.fmt(f),
            Self::NoHost => "there is no Host",
            Self::ManyHosts => "there is more than one Host",
            Self::Host(malformed) => return write!(f, "Host: {malformed}"),
            Self::HostMismatch => "the target and Host name different hosts",
            Self::Length => "Content-Length is no number",
            Self::ManyLengths => "there is more than one Content-Length",
            Self::LengthAndCoding => "both Content-Length and Transfer-Encoding",
            Self::Coding => "Transfer-Encoding is not exactly chunked",
            Self::UnknownCoding => "a transfer coding other than chunked",
            Self::ManyCodings => "there is more than one Transfer-Encoding",
            Self::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::Connection => "Connection is no short list of tokens",
            Self::Nominated => "Connection nominates a field that may not be dropped",
            Self::Expect => "an expectation other than 100-continue",
            Self::WebSocket => "a malformed WebSocket upgrade",
            Self::StatusLine => "the status line is malformed",
            Self::Status => "the status is outside 100 to 599",
            Self::Unasked => "an upgrade that nobody asked for",
            Self::Handshake => "the upgrade is not the one asked for",
            Self::BodyForbidden => "a body on a response that has none",
            Self::ChunkSize => "a malformed chunk size",
            Self::ChunkExtension => "malformed or too long chunk extensions",
            Self::ChunkEnd => "a chunk does not end where it says",
            Self::TrailersTooLarge => "the trailers are too large",
        })
    }
}

impl std::error::Error for Reject {}
