//! Every foreign vocabulary, nowhere else: files that people write become resources and findings of [`hms_model`].
//!
//! A translator never stops at the first mistake. It returns what it could read **and** every finding with file, line and
//! column; one finding that is an error means that nothing of the input may take effect. Readers are strict: an unknown key, a
//! key of a later release, a number in an ambiguous notation or a value given twice is an error, never ignored. Whatever the
//! input, reading it is bounded in time and memory and does not panic.
//!
//! * [`source`]: a file's text, checked and located
//! * [`route_yaml`]: route files
//! * [`lints`]: habits that a mesh is there to end
//! * [`mesh_yaml`]: `mesh.yaml` with `gateway.yaml` and `mesh-config.yaml`
//! * [`compose`]: the containers of a Compose file, and how they are joined
//! * [`convert`]: objects written as the Gateway API's
//! * [`envoy_static`]: static files of Envoy's
//! * [`jwks`]: a token issuer's public keys
//! * [`objects`]: objects of Kubernetes and of other meshes: the Gateway API's, Linkerd's, SMI's, Istio's, Consul's, App Mesh's
//! * [`routes_json`]: the table of all routes, in and out
//! * [`scenario`]: what `hms sim` plays
//! * [`stored`]: resources as they are shown, to be applied again
//! * [`mod@render`]: findings for a terminal

pub mod compose;
pub mod convert;
pub mod envoy_static;
pub mod jwks;
pub mod lints;
pub mod mesh_yaml;
pub mod objects;
pub mod render;
pub mod route_yaml;
pub mod routes_json;
pub mod scenario;
pub mod source;
pub mod stored;

mod appmesh;
mod consul;
mod document;
mod gateway_api;
mod istio;
mod linkerd;
mod read;
mod rules;
mod smi;
mod traffic_split;

pub use render::render;
pub use source::Source;
