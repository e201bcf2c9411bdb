//! New connections one after another: a full mutual handshake, one request, the end.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::ClientConfig;
use serde_json::json;

use super::exchange::{self, connect, exchange};
use super::identity::{Identity, Offer, secured};
use crate::arguments::Positional;
use crate::clock::now;
use crate::{Outcome, say};

const USAGE: &str = "usage: hms-bench handshake IP:PORT IDENTITY_FOLDER classic|hybrid SECONDS";

/// The tool.
pub(crate) fn main(arguments: Vec<OsString>) -> Outcome {
    let mut arguments = Positional::new(arguments, USAGE);
    let address = arguments.address()?;
    let folder: PathBuf = arguments.take("IDENTITY_FOLDER")?;
    let offer: Offer = arguments.take("classic|hybrid")?;
    let time = arguments.seconds()?;
    let identity = Identity::load(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let config = identity.client(offer)?;
    let request = exchange::get("bench-svc", "/");
    let end = now() + time;
    let mut done = 0_u64;
    while now() < end {
        once(address, &config, &request).map_err(|error| format!("{address}: {error}"))?;
        done += 1;
    }
    say(&json!({"done": done}).to_string());
    Ok(())
}

fn once(address: SocketAddr, config: &Arc<ClientConfig>, request: &[u8]) -> io::Result<()> {
    let mut tls = secured(config, connect(address)?)?;
    match exchange(&mut tls, request)? {
        (200, _) => Ok(()),
        (status, _) => Err(io::Error::other(format!("answered {status}"))),
    }
}
