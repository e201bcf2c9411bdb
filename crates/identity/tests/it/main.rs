//! The identity crate from outside: wrong certificates, wrong requests, real handshakes.

#[cfg(test)]
mod bundles;
#[cfg(test)]
mod chains;
#[cfg(test)]
mod csrs;
#[cfg(test)]
mod der;
#[cfg(test)]
mod forge;
#[cfg(test)]
mod handshakes;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod names;
#[cfg(test)]
mod svids;
