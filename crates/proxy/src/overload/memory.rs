//! How much memory there is, how much is used, and what that means (reliability §6).

use std::fs;
use std::path::{Path, PathBuf};

/// How tight memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// There is enough.
    #[default]
    Calm = 0,
    /// From 80 %: people should know.
    Tight = 1,
    /// From 90 %: no new connections, and each answer is the last on its connection.
    Closing = 2,
    /// From 95 %: requests are refused.
    Shedding = 3,
}

/// Where each level begins, in percent.
const BEGINS: [(Level, u64); 3] = [(Level::Shedding, 95), (Level::Closing, 90), (Level::Tight, 80)];
/// A level ends so many percent below its beginning, so that it does not come and go with every sample.
const HOLDS: u64 = 3;

impl Level {
    /// The level with `used` bytes of `limit`, after it was `before`.
    pub fn of(used: u64, limit: u64, before: Self) -> Self {
        let percent = used.saturating_mul(100) / limit.max(1);
        let reached = |(level, begins): &&(Self, u64)| {
            let begins = if before >= *level { begins - HOLDS } else { *begins };
            percent >= begins
        };
        BEGINS.iter().find(reached).map_or(Self::Calm, |(level, _)| *level)
    }

    /// The level with this number.
    pub fn from_number(number: u8) -> Self {
        BEGINS.into_iter().map(|(level, _)| level).find(|level| *level as u8 == number).unwrap_or_default()
    }
}

/// What is compared with what.
#[derive(Debug)]
pub enum Source {
    /// Our own resident memory with a limit from the settings, in bytes.
    Own(u64),
    /// What our control group holds and cannot give back, with its limit.
    Group(Group),
}

/// The files of a control group with a memory limit.
#[derive(Debug)]
pub struct Group {
    usage: PathBuf,
    stat: PathBuf,
    inactive: &'static str,
    limit: u64,
}

impl Source {
    /// The setting, else the control group's limit, version 2 before 1; `None` if nothing limits us.
    pub fn find(setting: Option<u64>) -> Option<Self> {
        let group = || Group::find(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").ok()?);
        setting.map(Self::Own).or_else(|| group().map(Self::Group))
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        match self {
            Self::Own(limit) => *limit,
            Self::Group(group) => group.limit,
        }
    }

    /// What is used, in bytes; `None` if the kernel does not tell.
    pub fn used(&self) -> Option<u64> {
        match self {
            Self::Own(_) => resident(&fs::read_to_string("/proc/self/status").ok()?),
            Self::Group(group) => group.used(),
        }
    }
}

impl Group {
    /// The group named in the text of `/proc/self/cgroup`. Inside a container its path may not exist below `root`, where then our
    /// own group is at the top.
    fn find(root: &Path, own: &str) -> Option<Self> {
        let line = |controller: &str| {
            let mut lines = own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
            lines.find(|(controllers, _)| controllers.split(',').any(|word| word == controller)).map(|(_, path)| path)
        };
        let places = |root: PathBuf, path: &str| [root.join(path.trim_start_matches('/')), root];
        let two = line("").into_iter().flat_map(|path| places(root.to_path_buf(), path));
        let two = two.filter_map(|folder| Self::open(&folder, "memory.max", "memory.current", "inactive_file"));
        let one = line("memory").into_iter().flat_map(|path| places(root.join("memory"), path));
        let one = one.filter_map(|folder| {
            Self::open(&folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        });
        two.chain(one).next()
    }

    fn open(folder: &Path, limit: &str, usage: &str, inactive: &'static str) -> Option<Self> {
        // `max` is no number, and version 1 says so with one larger than any machine.
        let limit = number(&folder.join(limit)).filter(|limit| *limit < 1 << 50)?;
        Some(Self { usage: folder.join(usage), stat: folder.join("memory.stat"), inactive, limit })
    }

    /// Without the pages of files that nobody has used lately: the kernel takes those back before it kills anybody.
    fn used(&self) -> Option<u64> {
        let stat = fs::read_to_string(&self.stat).unwrap_or_default();
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        let inactive = lines.find(|(name, _)| *name == self.inactive).and_then(|(_, bytes)| bytes.parse().ok());
        Some(number(&self.usage)?.saturating_sub(inactive.unwrap_or(0)))
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `VmRSS` of `/proc/PID/status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_at_80_90_and_95_percent_and_end_a_little_below() {
        let of = |used, before| Level::of(used, 1000, before);
        let calm = Level::Calm;
        assert_eq!(
            [799, 800, 899, 900, 949, 950, 2000].map(|used| of(used, calm)),
            [calm, Level::Tight, Level::Tight, Level::Closing, Level::Closing, Level::Shedding, Level::Shedding,]
        );
        assert_eq!(of(920, Level::Shedding), Level::Shedding);
        assert_eq!(of(919, Level::Shedding), Level::Closing);
        assert_eq!(of(869, Level::Closing), Level::Tight);
        assert_eq!(of(769, Level::Shedding), calm);
        assert_eq!(Level::of(1, 0, calm), Level::Shedding, "no limit of zero divides");
    }

    #[test]
    fn a_level_is_found_by_its_number() {
        for level in [Level::Calm, Level::Tight, Level::Closing, Level::Shedding] {
            assert_eq!(Level::from_number(level as u8), level);
        }
    }

    #[test]
    fn the_limits_of_both_versions_of_control_groups_are_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("pod/memory.max", "1000\n");
        write("pod/memory.current", "900\n");
        write("pod/memory.stat", "anon 700\ninactive_file 150\n");
        let two = Group::find(root.path(), "0::/pod\n").unwrap();
        assert_eq!((two.limit, two.used()), (1000, Some(750)));

        write("free/memory.max", "max\n");
        assert!(Group::find(root.path(), "0::/free\n").is_none());

        write("memory/memory.limit_in_bytes", "2000\n");
        write("memory/memory.usage_in_bytes", "500\n");
        let one = Group::find(root.path(), "9:name=systemd:/\n3:cpu,memory:/docker/abc\n").unwrap();
        assert_eq!((one.limit, one.used()), (2000, Some(500)), "in a container the own group is at the top");
    }

    #[test]
    fn our_own_memory_is_read() {
        assert!(Source::Own(1).used().unwrap() > 1 << 20);
        assert_eq!(resident("VmRSS:\t  1024 kB\n"), Some(1 << 20));
    }
}
