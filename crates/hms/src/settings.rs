//! What a person asked for, made meaningful once: flags, environment, configuration files, defaults, in this order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cli::{Colour, Format, Globals};
use crate::exit::Exit;
use crate::failure::Failure;

/// Longest wait for one answer of the control plane, unless asked otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The environment variables this program looks at, read once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the process environment. Values that are no UTF-8 count as unset.
    pub(crate) fn read() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// An environment for tests.
    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// A variable that is set and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable that names an absolute path; a relative one is ignored, as the XDG base directory specification asks.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}

/// The directories of the XDG base directory specification, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Directories {
    /// `$XDG_STATE_HOME/hms`.
    pub(crate) state: PathBuf,
    /// `$XDG_DATA_HOME/hms`: the edge authority of this user.
    pub(crate) data: PathBuf,
    /// `$XDG_RUNTIME_DIR/hms`, or `/dev/shm/hms-<uid>`: sockets, process ids, keys; never on a disk.
    pub(crate) run: PathBuf,
    /// `$XDG_CONFIG_HOME/hms`.
    pub(crate) config: PathBuf,
    /// The user's home.
    pub(crate) home: PathBuf,
}

impl Directories {
    /// Resolves them.
    pub(crate) fn resolve(environment: &Environment) -> Result<Self, Failure> {
        let user = nix::unistd::getuid();
        let home = environment
            .absolute("HOME")
            .or_else(|| nix::unistd::User::from_uid(user).ok().flatten().map(|user| user.dir))
            .ok_or_else(|| {
                Failure::new(Exit::Failed, 1009, "this user has no home directory").fix("set HOME to an absolute path")
            })?;
        let under = |variable: &str, default: &str| {
            environment.absolute(variable).unwrap_or_else(|| home.join(default)).join("hms")
        };
        Ok(Self {
            state: under("XDG_STATE_HOME", ".local/state"),
            data: under("XDG_DATA_HOME", ".local/share"),
            config: under("XDG_CONFIG_HOME", ".config"),
            run: environment
                .absolute("XDG_RUNTIME_DIR")
                .map_or_else(|| PathBuf::from(format!("/dev/shm/hms-{user}")), |directory| directory.join("hms")),
            home,
        })
    }
}

/// `config.yaml` of the user or the machine: defaults for the flags of every command.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    output: Option<Format>,
    color: Option<Colour>,
    server: Option<String>,
    namespace: Option<String>,
    timeout: Option<String>,
}

/// Everything a command needs to know about its surroundings.
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The project's folder, if it was named.
    pub(crate) project: Option<PathBuf>,
    /// The control plane, if it was named.
    pub(crate) server: Option<String>,
    /// The namespace of bare names.
    pub(crate) namespace: String,
    /// Shape of answers.
    pub(crate) format: Format,
    /// Only data and errors.
    pub(crate) quiet: bool,
    /// 0, 1 or 2.
    pub(crate) verbose: u8,
    /// Colour on stdout and on stderr.
    pub(crate) colour: (bool, bool),
    /// Whether the locale can show more than ASCII.
    pub(crate) unicode: bool,
    /// Longest wait for one answer.
    pub(crate) timeout: Duration,
    /// Answer questions with yes.
    pub(crate) yes: bool,
    /// Where things are kept.
    pub(crate) directories: Directories,
    /// The rest of the environment.
    pub(crate) environment: Environment,
}

impl Settings {
    /// Brings flags, environment and files together. A broken configuration file is an error, not a silent default.
    pub(crate) fn resolve(globals: &Globals, environment: Environment) -> Result<Self, Failure> {
        let directories = Directories::resolve(&environment)?;
        let own = read_config(&directories.config.join("config.yaml"))?;
        let machine = read_config(Path::new("/etc/hms/config.yaml"))?;
        let colour = globals.color.or(own.color).or(machine.color).unwrap_or_default();
        let timeout = match (globals.timeout, own.timeout.or(machine.timeout)) {
            (Some(timeout), _) => timeout,
            (None, Some(text)) => crate::cli::parse_duration(&text).map_err(|why| {
                Failure::new(Exit::Usage, 1002, "config.yaml has a bad timeout").because(why).fix("timeout: 10s")
            })?,
            (None, None) => DEFAULT_TIMEOUT,
        };
        Ok(Self {
            project: globals.project.clone(),
            server: globals.server.clone().or(own.server).or(machine.server),
            namespace: globals
                .namespace
                .clone()
                .or(own.namespace)
                .or(machine.namespace)
                .unwrap_or_else(|| hms_model::names::DEFAULT_NAMESPACE.to_owned()),
            format: globals.output.or(own.output).or(machine.output).unwrap_or_default(),
            quiet: globals.quiet,
            verbose: globals.verbose,
            colour: (
                wants_colour(colour, &environment, std::io::stdout().is_terminal()),
                wants_colour(colour, &environment, std::io::stderr().is_terminal()),
            ),
            unicode: is_unicode(&environment),
            timeout,
            yes: globals.yes,
            directories,
            environment,
        })
    }

    /// `HMS_DISABLE=1`: programs run without any mesh.
    pub(crate) fn is_disabled(&self) -> bool {
        self.environment.text("HMS_DISABLE").is_some_and(|value| value != "0")
    }

    /// The programs of `PATH`, in order; relative entries are skipped, so a project's folder cannot slip one in.
    pub(crate) fn search_path(&self) -> Vec<PathBuf> {
        let path = self.environment.text("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
        std::env::split_paths(&OsString::from(path)).filter(|entry| entry.is_absolute()).collect()
    }
}

/// Reads a configuration file; one that does not exist says nothing.
fn read_config(path: &Path) -> Result<ConfigFile, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(ConfigFile::default()),
        Err(error) => {
            return Err(
                Failure::new(Exit::Usage, 1005, format!("cannot read {}", path.display())).because(error.to_string())
            );
        }
    };
    if text.trim().is_empty() {
        return Ok(ConfigFile::default());
    }
    serde_saphyr::from_str(&text).map_err(|error| {
        Failure::new(Exit::Usage, 1002, format!("{} is not usable", path.display()))
            .because(error.to_string())
            .fix("known keys: output, color, server, namespace, timeout")
    })
}

/// Flag, then `NO_COLOR`, then `CLICOLOR_FORCE`, then `TERM=dumb`, then whether a person looks.
fn wants_colour(flag: Colour, environment: &Environment, terminal: bool) -> bool {
    match flag {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto if environment.text("NO_COLOR").is_some() => false,
        Colour::Auto if environment.text("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        Colour::Auto => terminal && environment.text("TERM") != Some("dumb"),
    }
}

/// Whether the locale, by the order POSIX gives its variables, uses UTF-8.
fn is_unicode(environment: &Environment) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| environment.text(name)).is_some_and(|locale| {
        let folded = locale.to_ascii_lowercase();
        folded.contains("utf-8") || folded.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_flag_then_environment_then_terminal() {
        let none = Environment::default();
        let no_color = Environment::of(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]);
        let empty = Environment::of(&[("NO_COLOR", "")]);
        let force = Environment::of(&[("CLICOLOR_FORCE", "1")]);
        let dumb = Environment::of(&[("TERM", "dumb")]);
        assert!(wants_colour(Colour::Auto, &none, true) && !wants_colour(Colour::Auto, &none, false));
        assert!(!wants_colour(Colour::Auto, &no_color, true) && wants_colour(Colour::Always, &no_color, false));
        assert!(wants_colour(Colour::Auto, &empty, true), "an empty NO_COLOR says nothing");
        assert!(wants_colour(Colour::Auto, &force, false) && !wants_colour(Colour::Never, &force, true));
        assert!(!wants_colour(Colour::Auto, &dumb, true));
    }

    #[test]
    fn the_first_locale_variable_decides() {
        assert!(is_unicode(&Environment::of(&[("LANG", "de_DE.UTF-8")])));
        assert!(is_unicode(&Environment::of(&[("LC_ALL", "C.utf8"), ("LANG", "C")])));
        assert!(!is_unicode(&Environment::of(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")])));
        assert!(!is_unicode(&Environment::default()));
    }

    #[test]
    fn directories_follow_xdg_and_ignore_relative_values() {
        let set = Environment::of(&[
            ("HOME", "/home/lena"),
            ("XDG_STATE_HOME", "/s"),
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("XDG_DATA_HOME", "relative"),
        ]);
        let directories = Directories::resolve(&set).unwrap();
        assert_eq!(directories.state, Path::new("/s/hms"));
        assert_eq!(directories.run, Path::new("/run/user/7/hms"));
        assert_eq!(directories.data, Path::new("/home/lena/.local/share/hms"));
        let bare = Directories::resolve(&Environment::of(&[("HOME", "/h")])).unwrap();
        assert_eq!(bare.run, PathBuf::from(format!("/dev/shm/hms-{}", nix::unistd::getuid())));
    }
}
