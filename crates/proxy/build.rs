//! Lets the linker keep one of several functions that came out the same, which generic code makes many of.

#![expect(clippy::disallowed_methods, reason = "cargo tells a build script by variables")]

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| var(name).is_ok_and(|own| own == value);
    // Where Rust's own linker is the default; others may not know the word.
    let is_lld = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if is_lld && is("CARGO_CFG_TARGET_OS", "linux") && is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
