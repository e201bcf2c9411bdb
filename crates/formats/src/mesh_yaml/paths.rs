//! Paths within files, by their text alone: nothing here asks the disk.

/// A path written in the file `file`, seen from where that file's own name starts. An absolute path stays.
pub(crate) fn beside(file: &str, path: &str) -> String {
    if path.starts_with('/') { tidy(path) } else { tidy(&format!("{}/{path}", parent(file))) }
}

/// The folder of a file; `.` for a bare name.
pub(crate) fn parent(file: &str) -> String {
    match file.rsplit_once('/') {
        None => ".".to_owned(),
        Some(("", _)) => "/".to_owned(),
        Some((folder, _)) => tidy(folder),
    }
}

/// The same path without `.`, empty and avoidable `..` segments.
pub(crate) fn tidy(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => match kept.last() {
                Some(&last) if last != ".." => {
                    kept.pop();
                }
                _ if absolute => {}
                _ => kept.push(".."),
            },
            _ => kept.push(segment),
        }
    }
    match (absolute, kept.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_from_the_folder_of_their_file() {
        assert_eq!(beside("mesh.yaml", "hello_svc/route.yaml"), "hello_svc/route.yaml");
        assert_eq!(beside("./mesh.yaml", "./hello_svc//route.yaml"), "hello_svc/route.yaml");
        assert_eq!(beside("/a/b/mesh.yaml", "../c"), "/a/c");
        assert_eq!(beside("mesh.yaml", "../c"), "../c");
        assert_eq!(beside("a/mesh.yaml", "../../../c"), "../../c");
        assert_eq!(beside("a/mesh.yaml", "/etc/./keys"), "/etc/keys");
        assert_eq!(beside("/mesh.yaml", "../.."), "/");
        assert_eq!(beside("mesh.yaml", "."), ".");
    }
}
