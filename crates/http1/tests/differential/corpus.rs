//! The corpus of requests as a table.

/// One case of `corpus/requests.txt`.
#[derive(Debug, Default)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) ours: String,
    pub(crate) hyper: String,
    pub(crate) why: String,
}

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in include_str!("../corpus/requests.txt").lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix("  "), cases.last_mut()) {
            (None, _) if line.is_empty() => {}
            (None, _) => cases.push(Case { name: line.to_owned(), ..Case::default() }),
            (Some(line), Some(case)) => {
                let (key, value) = line.split_at(7);
                match key.trim() {
                    "bytes" => case.bytes = unescape(value),
                    "ours" => value.clone_into(&mut case.ours),
                    "hyper" => value.clone_into(&mut case.hyper),
                    "why" => value.clone_into(&mut case.why),
                    key => panic!("{}: unknown key {key}", case.name),
                }
            }
            (Some(_), None) => panic!("the first line is indented"),
        }
    }
    cases
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (byte, taken) = match rest {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] => {
                let digits = [*high, *low];
                (u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap(), 3)
            }
            [b'{', repeated @ ..] => {
                let end = repeated.iter().position(|byte| *byte == b'}').unwrap();
                let (text, count) = str::from_utf8(&repeated[..end]).unwrap().rsplit_once('*').unwrap();
                out.extend(unescape(text).repeat(count.parse().unwrap()));
                rest = &repeated[end + 1..];
                continue;
            }
            _ => panic!("unknown escape in {text}"),
        };
        out.push(byte);
        rest = &rest[taken..];
    }
    out
}
