//! The generated messages and services, one module per protobuf package.
//!
//! The files under `gen/` are written by `cargo xtask codegen`; `include!` keeps them out of rustfmt's reach, so what is
//! checked in is byte for byte what the generator wrote.

#![expect(
    clippy::pedantic,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes,
    clippy::excessive_nesting,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unused_qualifications,
    reason = "generated code follows the generator's taste"
)]

/// Messages of Google's common vocabulary.
pub mod google {
    /// `google.rpc`: the logical error of a call.
    pub mod rpc {
        include!("gen/google.rpc.rs");
    }
}

/// The part of Envoy's vocabulary that the mesh speaks.
pub mod envoy {
    /// Services.
    pub mod service {
        /// Discovery.
        pub mod discovery {
            /// `envoy.service.discovery.v3`: delta discovery over one aggregated stream.
            pub mod v3 {
                include!("gen/envoy.service.discovery.v3.rs");
            }
        }
    }
}

/// Our own vocabulary.
pub mod hms {
    /// `hms.v1`: resources, the control stream, the authority, and the greeting between proxies.
    pub mod v1 {
        include!("gen/hms.v1.rs");
    }
}
