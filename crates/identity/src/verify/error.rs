//! Why a chain is refused: a closed list, one word each.

use hms_model::spiffe::{SpiffeId, SpiffeIdError};

use crate::bundle::BundleError;

/// Why a chain is not believed. Closed on purpose: whoever matches on it must think of every reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No certificate at all.
    #[error("the peer showed no certificate")]
    EmptyChain,
    /// More than four certificates.
    #[error("the chain has more than 4 certificates")]
    ChainTooLong,
    /// More than 32 KiB.
    #[error("the chain is larger than 32 KiB")]
    ChainTooLarge,
    /// A certificate is no canonical X.509 in DER.
    #[error("a certificate is malformed")]
    Malformed,
    /// A certificate is not X.509 v3.
    #[error("a certificate is not of version 3")]
    Version,
    /// A serial number is zero, negative or longer than 20 bytes.
    #[error("a certificate has an invalid serial number")]
    Serial,
    /// A certificate carries the same extension twice.
    #[error("a certificate carries an extension twice")]
    DuplicateExtension,
    /// A critical extension that is not understood.
    #[error("a certificate carries a critical extension that is not understood")]
    CriticalExtension,
    /// The leaf has no URI SAN; a DNS name or a common name is never an identity inside the mesh.
    #[error("the leaf names no URI")]
    NoUri,
    /// The leaf has more than one URI SAN.
    #[error("the leaf names several URIs")]
    SeveralUris,
    /// The leaf has a name besides its URI (DNS, IP address, e-mail or another).
    #[error("the leaf names something besides its URI")]
    OtherName,
    /// The URI is no identity of the mesh.
    #[error("the URI of the leaf is no identity: {0}")]
    NotSpiffe(SpiffeIdError),
    /// The identity belongs to another trust domain than the bundle.
    #[error("the identity belongs to another trust domain")]
    TrustDomain,
    /// The leaf is a certificate authority.
    #[error("the leaf is a certificate authority")]
    LeafIsCa,
    /// The leaf may sign certificates or revocation lists.
    #[error("the leaf may sign certificates")]
    LeafSigns,
    /// The leaf has no key usage, or may not make digital signatures.
    #[error("the key usage of the leaf lacks digitalSignature")]
    KeyUsage,
    /// The leaf has no extended key usage.
    #[error("the leaf has no extended key usage")]
    EkuMissing,
    /// The leaf (or an issuer) is not for this side of a handshake, or is for more than TLS.
    #[error("the extended key usage does not fit")]
    EkuWrong,
    /// The leaf is for any purpose (anyExtendedKeyUsage).
    #[error("the leaf is for any purpose")]
    EkuAny,
    /// A key in the chain is weak or of a kind the mesh does not use.
    #[error("a key in the chain is none of P-256, P-384, Ed25519 or RSA of 2048 to 8192 bits")]
    WeakKey,
    /// A certificate is signed with an algorithm the mesh does not use, such as SHA-1.
    #[error("a certificate is signed with an unsupported algorithm")]
    SignatureAlgorithm,
    /// A signature is wrong.
    #[error("a signature in the chain is wrong")]
    BadSignature,
    /// A certificate of the chain has ended.
    #[error("a certificate of the chain has expired")]
    Expired,
    /// A certificate of the chain has not begun.
    #[error("a certificate of the chain is not valid yet")]
    NotYetValid,
    /// A certificate ends before it begins.
    #[error("a certificate ends before it begins")]
    Validity,
    /// A certificate is not issued by the next one, or two issuers share a name.
    #[error("the chain is not in order")]
    ChainOrder,
    /// An issuer in the chain is no certificate authority.
    #[error("an issuer in the chain is no certificate authority")]
    IssuerNotCa,
    /// An issuer in the chain may not sign certificates.
    #[error("an issuer in the chain may not sign certificates")]
    IssuerKeyUsage,
    /// The chain is longer than one of its issuers allows.
    #[error("the chain is longer than an issuer allows")]
    PathLength,
    /// An issuer's name constraints forbid the leaf.
    #[error("the name constraints of an issuer forbid the leaf")]
    NameConstraint,
    /// No path leads to a root of the bundle.
    #[error("no root of the trust bundle issued this chain")]
    UnknownIssuer,
    /// The path ends in a root whose life is over.
    #[error("the root of the chain has expired")]
    RootExpired,
    /// The path ends in a root whose life has not begun.
    #[error("the root of the chain is not valid yet")]
    RootNotYetValid,
    /// The path is refused for a reason that has no name here.
    #[error("the chain is not verifiable")]
    Unverifiable,
    /// The bundle itself is not believed, so no chain is.
    #[error("the trust bundle is refused: {0}")]
    Bundle(BundleError),
    /// The chain is sound, but this is not who was called.
    #[error("the peer is {0}, who was not called")]
    UnexpectedIdentity(Box<SpiffeId>),
    /// The wall clock stands before 1970, so no life can be judged.
    #[error("the clock of this machine is wrong")]
    Clock,
}

impl VerifyError {
    /// A stable word for logs and metrics; one per variant.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::EmptyChain => "chain-empty",
            Self::ChainTooLong => "chain-too-long",
            Self::ChainTooLarge => "chain-too-large",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Serial => "serial",
            Self::DuplicateExtension => "duplicate-extension",
            Self::CriticalExtension => "critical-extension",
            Self::NoUri => "no-uri",
            Self::SeveralUris => "several-uris",
            Self::OtherName => "other-name",
            Self::NotSpiffe(_) => "not-spiffe",
            Self::TrustDomain => "trust-domain",
            Self::LeafIsCa => "leaf-is-ca",
            Self::LeafSigns => "leaf-signs",
            Self::KeyUsage => "key-usage",
            Self::EkuMissing => "eku-missing",
            Self::EkuWrong => "eku-wrong",
            Self::EkuAny => "eku-any",
            Self::WeakKey => "weak-key",
            Self::SignatureAlgorithm => "signature-algorithm",
            Self::BadSignature => "bad-signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Validity => "validity",
            Self::ChainOrder => "chain-order",
            Self::IssuerNotCa => "issuer-not-ca",
            Self::IssuerKeyUsage => "issuer-key-usage",
            Self::PathLength => "path-length",
            Self::NameConstraint => "name-constraint",
            Self::UnknownIssuer => "unknown-issuer",
            Self::RootExpired => "root-expired",
            Self::RootNotYetValid => "root-not-yet-valid",
            Self::Unverifiable => "unverifiable",
            Self::Bundle(_) => "bundle",
            Self::UnexpectedIdentity(_) => "unexpected-identity",
            Self::Clock => "clock",
        }
    }

    /// The reason behind what webpki says about a path.
    pub(crate) fn from_webpki(error: &webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CaUsedAsEndEntity => Self::LeafIsCa,
            E::CertExpired { .. } => Self::Expired,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            E::InvalidCertValidity => Self::Validity,
            E::EmptyEkuExtension | E::RequiredEkuNotFoundContext(_) => Self::EkuWrong,
            E::EndEntityUsedAsCa => Self::IssuerNotCa,
            E::InvalidSerialNumber => Self::Serial,
            E::InvalidSignatureForPublicKey
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | E::SignatureAlgorithmMismatch => Self::BadSignature,
            E::UnsupportedSignatureAlgorithmContext(_) => Self::SignatureAlgorithm,
            E::MalformedNameConstraint
            | E::InvalidNetworkMaskConstraint
            | E::MaximumNameConstraintComparisonsExceeded
            | E::NameConstraintViolation => Self::NameConstraint,
            E::PathLenConstraintViolated | E::MaximumPathDepthExceeded => Self::PathLength,
            E::UnknownIssuer => Self::UnknownIssuer,
            E::UnsupportedCertVersion => Self::Version,
            E::UnsupportedCriticalExtension => Self::CriticalExtension,
            E::BadDer | E::BadDerTime | E::ExtensionValueInvalid | E::MalformedExtensions | E::TrailingData(_) => {
                Self::Malformed
            }
            _ => Self::Unverifiable,
        }
    }
}
