//! What a run is asked to do.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use super::case::{CASES, Case};
use super::peers::Peer;
use crate::Outcome;

const USAGE: &str = "usage: hms-bench run --hms FILE --proxy FILE [--envoy FILE] [--quick] [--peer nginx,haproxy,envoy] \
                     [--only CASE,...] [--json FILE] [--page FILE]";

/// The programs that are measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    /// Our command line; it starts our proxies and is not on their path.
    pub(crate) hms: PathBuf,
    /// Our proxy.
    pub(crate) proxy: PathBuf,
    /// Envoy, which no distribution packages.
    pub(crate) envoy: Option<PathBuf>,
}

/// The whole command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// What is measured.
    pub(crate) programs: Programs,
    /// One short round instead of three long ones.
    pub(crate) quick: bool,
    /// Who is compared with.
    pub(crate) peers: Vec<Peer>,
    /// What is measured.
    pub(crate) cases: Vec<&'static Case>,
    /// Whether those are all cases.
    pub(crate) whole: bool,
    /// Where results go as JSON.
    pub(crate) json: Option<PathBuf>,
    /// Where results go as a page of the documentation.
    pub(crate) page: Option<PathBuf>,
}

impl Options {
    /// Reads them.
    pub(crate) fn read(arguments: Vec<OsString>) -> Outcome<Self> {
        let mut options =
            Self { peers: Peer::ALL.to_vec(), cases: CASES.iter().collect(), whole: true, ..Self::default() };
        let mut parser = Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(wrong)? {
            match argument {
                Arg::Long("hms") => options.programs.hms = path(&mut parser)?,
                Arg::Long("proxy") => options.programs.proxy = path(&mut parser)?,
                Arg::Long("envoy") => options.programs.envoy = Some(path(&mut parser)?),
                Arg::Long("json") => options.json = Some(path(&mut parser)?),
                Arg::Long("page") => options.page = Some(path(&mut parser)?),
                Arg::Long("quick") => options.quick = true,
                Arg::Long("peer") => options.peers = peers(&text(&mut parser)?)?,
                Arg::Long("only") => {
                    options.cases = cases(&text(&mut parser)?)?;
                    options.whole = options.cases.len() == CASES.len();
                }
                other => return Err(wrong(other.unexpected())),
            }
        }
        if options.programs.hms.as_os_str().is_empty() || options.programs.proxy.as_os_str().is_empty() {
            return Err(USAGE.to_owned());
        }
        Ok(options)
    }
}

fn wrong(error: impl std::fmt::Display) -> String {
    format!("{error}\n{USAGE}")
}

fn path(parser: &mut Parser) -> Outcome<PathBuf> {
    parser.value().map(PathBuf::from).map_err(wrong)
}

fn text(parser: &mut Parser) -> Outcome<String> {
    parser.value().and_then(ValueExt::string).map_err(wrong)
}

fn peers(list: &str) -> Outcome<Vec<Peer>> {
    let known = |word: &str| Peer::ALL.into_iter().find(|peer| peer.name() == word);
    let mut peers = list
        .split(',')
        .map(|word| known(word).ok_or_else(|| wrong(format!("`{word}` is no peer"))))
        .collect::<Result<Vec<_>, _>>()?;
    peers.sort_unstable();
    peers.dedup();
    Ok(peers)
}

fn cases(list: &str) -> Outcome<Vec<&'static Case>> {
    if let Some(unknown) = list.split(',').find(|word| CASES.iter().all(|case| case.name != *word)) {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("`{unknown}` is no case; there are: {}", names.join(" ")));
    }
    Ok(CASES.iter().filter(|case| list.split(',').any(|word| word == case.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Outcome<Options> {
        Options::read(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn cases_and_peers_are_chosen_by_name_in_their_own_order() {
        let options = read("--hms a --proxy b --only pair-16k,plain-100b --peer envoy,nginx,nginx --quick").unwrap();
        let names: Vec<&str> = options.cases.iter().map(|case| case.name).collect();
        assert_eq!(names, ["plain-100b", "pair-16k"]);
        assert_eq!(options.peers, [Peer::Nginx, Peer::Envoy]);
        assert!(options.quick && !options.whole);
    }

    #[test]
    fn a_wrong_word_is_named() {
        assert!(
            read("--hms a --proxy b --only pear").is_err_and(|why| why.contains("`pear`") && why.contains("pair-1m"))
        );
        assert!(read("--hms a --proxy b --peer caddy").is_err_and(|why| why.contains("`caddy`")));
        assert!(read("--quick").is_err_and(|why| why.starts_with("usage")));
    }
}
