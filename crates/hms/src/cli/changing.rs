//! Options of the commands that look at the configuration and change it.

use std::path::PathBuf;

use clap::Args;

/// `hms apply`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Apply {
    /// Route files and SMI's traffic splits
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `hms rollback`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rollback {
    /// The revision, as hms history numbers them [default: the newest that said something else]
    #[arg(long, value_name = "REVISION")]
    pub(crate) to: Option<u64>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `hms get`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Get {
    /// Kind: declaration (or service), route, split, gateway, egress, defaults, …
    #[arg(value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `hms delete`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Delete {
    /// Kind: declaration (or service), route, split, egress, …
    #[arg(value_name = "KIND", required_unless_present = "files", conflicts_with = "files", requires = "name")]
    pub(crate) kind: Option<String>,
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What these files would make
    #[arg(short, long = "file", value_name = "FILE", num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}
