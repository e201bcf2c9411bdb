//! Who is speaking: private keys, CSRs, SVIDs, trust bundles, and the TLS configurations of the mesh.
//!
//! Pure: no sockets, no files, no tasks. Everything here either answers or refuses with a named reason; whatever cannot be
//! decided is refused. The certificate authority itself lives in the control plane; this crate only holds the checks both
//! sides share.

pub mod bundle;
pub mod client_hello;
pub mod clock;
pub mod csr;
mod der;
pub mod key;
pub mod rotate;
pub mod strength;
pub mod svid;
pub mod tls;
pub mod token;
pub mod verify;
